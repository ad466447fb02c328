#!/bin/sh
# Asks relays and discovery services to crawl a host. For a hold's start-up; needs curl or wget, and nothing else.
#
#   request-crawl.sh HOST [RELAY ...]
#
# One line for each relay, in the order of their answers. Exit: 0 if one of them accepted, 1 if none did, 2 if the request was wrong.
# In the environment:
#   REQUEST_CRAWL_RELAYS    who is asked where no RELAY is named   https://bsky.network
#   REQUEST_CRAWL_NEED      one; or all: exit 0 if all accepted    one
#   REQUEST_CRAWL_ATTEMPTS  rounds, in which those are asked who have not accepted yet and may do so later    6
#   REQUEST_CRAWL_PAUSE     seconds after the first round, then doubled    1
#   REQUEST_CRAWL_LONGEST   seconds of Retry-After that are waited    300
#   REQUEST_CRAWL_TIMEOUT   seconds that one answer may take    60
#   REQUEST_CRAWL_WITH      curl or wget; else whichever is there
set -fu

wrong() {
  echo "request-crawl: $1" >&2
  exit 2
}

[ $# -ge 1 ] || wrong 'usage: request-crawl.sh HOST [RELAY ...]'
host=${1#https://}
host=${host%/}
shift
case $host in
  '' | *[!A-Za-z0-9.:/-]*) wrong "not a host: $host" ;;
esac
# shellcheck disable=SC2086
[ $# -ge 1 ] || set -- ${REQUEST_CRAWL_RELAYS:-https://bsky.network}

need=${REQUEST_CRAWL_NEED:-one}
attempts=${REQUEST_CRAWL_ATTEMPTS:-6}
pause=${REQUEST_CRAWL_PAUSE:-1}
longest=${REQUEST_CRAWL_LONGEST:-300}
timeout=${REQUEST_CRAWL_TIMEOUT:-60}
with=${REQUEST_CRAWL_WITH:-$(command -v curl >/dev/null 2>&1 && echo curl || echo wget)}
case $need in one | all) ;; *) wrong 'REQUEST_CRAWL_NEED is one or all' ;; esac
for number in "$attempts" "$pause" "$longest" "$timeout"; do
  case $number in '' | *[!0-9]*) wrong "not a whole number: $number" ;; esac
done
case $with in curl | wget) ;; *) wrong 'REQUEST_CRAWL_WITH is curl or wget' ;; esac
command -v "$with" >/dev/null 2>&1 || wrong 'neither curl nor wget is here'

folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# No answer may fill the disk: 64 KB, in blocks of 512 bytes.
ulimit -f 128

# Leaves the headers in $folder/head and the body in $folder/body; nothing where the answer is not whole.
ask() {
  : >"$folder/head"
  : >"$folder/body"
  set -- "$1/xrpc/com.atproto.sync.requestCrawl" 'content-type: application/json' "{\"hostname\": \"$host\"}"
  if [ "$with" = curl ]; then
    curl --silent --max-time "$timeout" --dump-header "$folder/head" --output "$folder/body" \
      --header "$2" --header 'expect:' --data "$3" "$1"
    case $? in 0) ;; *) : >"$folder/head" ;; esac
  else
    # shellcheck disable=SC2086
    $within wget -S $gnu -O "$folder/body" --header "$2" --post-data "$3" "$1" 2>"$folder/head"
    # 8: an answer with an error's status. Another wget than GNU's does not tell it from no answer.
    case $?:$gnu in 0:* | 8:* | 1:) ;; *) : >"$folder/head" ;; esac
  fi
}

# wget's own limit is for each silence, not for the whole, and not every wget has one.
within=
command -v timeout >/dev/null 2>&1 && within="timeout $timeout"
gnu=
wget --help 2>&1 | grep -q content-on-error && gnu="--content-on-error --tries=1 --max-redirect=0 --timeout=$timeout"

# The last status line; those before it are of interim answers.
status_of_answer() {
  sed -n 's/^ *HTTP\/[0-9.]* \([0-9][0-9][0-9]\).*/\1/p' "$folder/head" | tail -n 1
}

retry_after() {
  tr '[:upper:]' '[:lower:]' <"$folder/head" | sed -n 's/^ *retry-after: *\([0-9]\{1,6\}\)[^0-9]*$/\1/p' | tail -n 1
}

# The named text of an error's JSON, as far as it is plain.
text() {
  head -c 4096 "$folder/body" | tr -c ' -~' ' ' | sed -n "s/.*\"$1\" *: *\"\\([^\"\\\\]*\\)\".*/\\1/p" | cut -c 1-200
}

accepted=0
failed=0
round=1
while :; do
  later=
  longest_asked=0
  for relay; do
    case $relay in http://* | https://*) url=${relay%/} ;; *) url=https://${relay%/} ;; esac
    ask "$url"
    status=$(status_of_answer)
    error=$(text error)
    message=$(text message)
    asked=$(retry_after)
    why=${status:-no answer}${error:+ $error}${message:+ $message}
    case $status:$error in
      2??:*)
        echo "$url: accepted"
        accepted=$((accepted + 1))
        continue
        ;;
      # No name: a wget that does not keep what comes with an error.
      :* | 429:* | 5??:* | 400:HostNotFound | 400:)
        if [ "$round" -lt "$attempts" ] && [ "${asked:-0}" -le "$longest" ]; then
          later="$later $url"
          [ "${asked:-0}" -gt "$longest_asked" ] && longest_asked=$asked
          continue
        fi
        ;;
    esac
    echo "$url: failed: $why"
    failed=$((failed + 1))
  done
  [ -n "$later" ] || break
  if [ "$longest_asked" -gt "$pause" ]; then sleep "$longest_asked"; else sleep "$pause"; fi
  pause=$((pause * 2))
  round=$((round + 1))
  # shellcheck disable=SC2086
  set -- $later
done

[ "$accepted" -gt 0 ] && { [ "$need" = one ] || [ "$failed" -eq 0 ]; }
