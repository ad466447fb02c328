// The reference PLC directory and PDS, both on loopback, driven by one JSON object a line.
//
// Started with one argument, a JSON object {folder, pds_port, plc_port}: the PDS keeps its state in `folder`, the
// directory in memory. The first line on stdout says where both listen; after that each line on stdin,
// {"command": NAME, ...}, is answered by one line, {"error": text} where it failed. When stdin closes, all ends:
// no copy of this outlives whoever started it.

import { mkdirSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import net from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

// Both servers listen on every interface and the PDS has a known admin password: keep them on loopback.
const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (port, ...rest) {
  return listen.call(this, { port, host: '127.0.0.1' }, ...rest)
}

// stdout belongs to the answers.
console.log = console.info = console.error

// By file: the package's index imports the AppView and the labeller too, and takes three times as long.
const { TestPds } = await import('@atproto/dev-env/dist/pds.js')
const { TestPlc } = await import('@atproto/dev-env/dist/plc.js')
const { mockNetworkUtilities } = await import('@atproto/dev-env/dist/util.js')
const { Secp256k1Keypair } = await import('@atproto/crypto')
const { rotateKeys } = await import('@atproto/pds/dist/scripts/rotate-keys.js')

const settings = JSON.parse(process.argv[2])
const rotationKey = await Secp256k1Keypair.create({ exportable: true })
const plc = await TestPlc.create({ port: settings.plc_port })
let pds = null

// What must stay the same for a restarted PDS to be the same PDS: its port, its folders and the key that it signs
// directory operations with. Each repo's signing key is in the data folder.
const dataDirectory = join(settings.folder, 'data')
mkdirSync(dataDirectory, { recursive: true })
const pdsConfig = {
  port: settings.pds_port,
  didPlcUrl: plc.url,
  dataDirectory,
  blobstoreDiskLocation: join(settings.folder, 'blobs'),
  plcRotationKeyK256PrivateKeyHex: Buffer.from(await rotationKey.export()).toString('hex'),
}

const commands = {
  async start_pds() {
    if (pds) throw new Error('the PDS is running')
    pds = await TestPds.create(pdsConfig)
    mockNetworkUtilities(pds) // handles under .test resolve through the PDS itself
    return {}
  },
  async stop_pds() {
    if (!pds) throw new Error('the PDS is not running')
    await pds.close()
    pds = null
    return {}
  },
  async latest_seq() {
    if (!pds) throw new Error('the PDS is not running')
    return { seq: (await pds.ctx.sequencer.curr()) ?? 0 }
  },
  async tombstone({ did }) {
    await pds.ctx.plcClient.tombstone(did, pds.ctx.plcRotationKey)
    return {}
  },
  // As an operator does it: the PDS's own script tells the directory which key the PDS has, and tells the stream.
  async rotate_key({ did }) {
    const { keyLocation } = await pds.ctx.actorStore.getLocation(did)
    const key = await Secp256k1Keypair.create({ exportable: true })
    await writeFile(keyLocation, await key.export())
    await rotateKeys(pds.ctx, [did])
    const told = await pds.ctx.idResolver.did.resolveAtprotoKey(did, true)
    if (told !== key.did()) throw new Error(`the directory has the key ${told}`)
    return {}
  },
}

const answer = (value) => process.stdout.write(JSON.stringify(value) + '\n')

await commands.start_pds()
answer({ pds: pds.url, plc: plc.url, admin_authorization: pds.adminAuth() })

const lines = createInterface({ input: process.stdin })
lines.on('close', () => process.exit(0))
for await (const line of lines) {
  try {
    const { command, ...values } = JSON.parse(line)
    if (!Object.hasOwn(commands, command)) throw new Error(`no such command: ${command}`)
    answer(await commands[command](values))
  } catch (error) {
    answer({ error: String(error?.message ?? error) })
  }
}
