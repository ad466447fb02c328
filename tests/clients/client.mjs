// Pages through the service at the first argument with @atproto/api, whose client holds each answer against its lexicons; the other
// arguments are files of further lexicons. What it found goes to stdout as one JSON object.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const [installed, url, collection, records, ...files] = process.argv.slice(2)
const require = createRequire(join(installed, 'package.json'))
const { AtpAgent, lexicons, schemas } = require('@atproto/api')
const { Lexicons } = require('@atproto/lexicon')

const { sync, repo } = new AtpAgent({ service: url }).com.atproto
let validated = 0

async function ask(nsid, method, parameters) {
  const { data } = await method(parameters)
  lexicons.assertValidXrpcOutput(nsid, data)
  validated += 1
  return data
}

async function all(nsid, method, part, parameters) {
  const found = []
  let cursor
  do {
    const page = await ask(nsid, method, { ...parameters, cursor })
    found.push(...page[part])
    cursor = page.cursor
  } while (cursor)
  return found
}

const of = (methods, name) => (parameters) => methods[name](parameters)
const found = {
  listed: await all('com.atproto.sync.listReposByCollection', of(sync, 'listReposByCollection'), 'repos', { collection, limit: 2 }),
  hosts: await all('com.atproto.sync.listHosts', of(sync, 'listHosts'), 'hosts', { limit: 2 }),
  repos: await all('com.atproto.sync.listRepos', of(sync, 'listRepos'), 'repos', { limit: 3 }),
}
found.hostStatus = []
for (const { hostname } of found.hosts) {
  found.hostStatus.push(await ask('com.atproto.sync.getHostStatus', of(sync, 'getHostStatus'), { hostname }))
}
found.of = {}
for (const { did } of found.listed) {
  const status = await ask('com.atproto.sync.getRepoStatus', of(sync, 'getRepoStatus'), { did })
  const commit = await ask('com.atproto.sync.getLatestCommit', of(sync, 'getLatestCommit'), { did })
  const description = await ask('com.atproto.repo.describeRepo', of(repo, 'describeRepo'), { repo: did })
  const kept = await all('com.atproto.repo.listRecords', of(repo, 'listRecords'), 'records', { repo: did, collection: records, limit: 2 })
  const record = await ask('com.atproto.repo.getRecord', of(repo, 'getRecord'), { repo: did, collection, rkey: 'self' })
  found.of[did] = { status, commit, description, kept, record: { ...record, value: record.value.number } }
}

// An error of the lexicon arrives as its own class.
const gone = found.repos.find((repo) => !repo.active)
found.error = await sync.getLatestCommit({ did: gone.did }).then(() => null, (error) => error.constructor.name)

// The methods that are this service's own, by its own lexicons.
const more = new Lexicons([...schemas, ...files.map((file) => JSON.parse(readFileSync(file, 'utf-8')))])
async function own(nsid, parameters) {
  const answer = await fetch(`${url}/xrpc/${nsid}?${new URLSearchParams(parameters)}`)
  const body = await answer.json()
  more.assertValidXrpcOutput(nsid, body)
  validated += 1
  return body
}
await own('io.atcr.discovery.getRepoStatus', { did: gone.did })
const first = await own('io.atcr.discovery.listRecords', { collection, limit: 2 })
await own('io.atcr.discovery.listRecords', { collection, limit: 2, cursor: first.cursor })
await own('io.atcr.discovery.listRecords', { collection, since: first.since })

console.log(JSON.stringify({ ...found, validated }))
