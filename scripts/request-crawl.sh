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
set -u

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
[ $# -ge 1 ] || set -f -- ${REQUEST_CRAWL_RELAYS:-https://bsky.network}

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

# Leaves the headers in $folder/head and the body in $folder/body.
ask() {
  : >"$folder/head"
  : >"$folder/body"
  set -- "$1/xrpc/com.atproto.sync.requestCrawl" 'content-type: application/json' "{\"hostname\": \"$host\"}"
  if [ "$with" = curl ]; then
    curl --silent --max-time "$timeout" --max-filesize 65536 --dump-header "$folder/head" --output "$folder/body" \
      --header "$2" --header 'expect:' --data "$3" "$1"
  else
    on_error=
    wget --help 2>&1 | grep -q content-on-error && on_error='--content-on-error --tries=1 --max-redirect=0'
    # shellcheck disable=SC2086
    timeout_of "$timeout" wget -S -T "$timeout" $on_error -O "$folder/body" --header "$2" --post-data "$3" "$1" 2>"$folder/head"
  fi
}

# wget's own limit is for each silence, not for the whole.
timeout_of() {
  if command -v timeout >/dev/null 2>&1; then timeout "$@"; else shift && "$@"; fi
}

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
  why=
  for relay; do
    case $relay in http://* | https://*) url=${relay%/} ;; *) url=https://${relay%/} ;; esac
    ask "$url"
    status=$(status_of_answer)
    error=$(text error)
    asked=$(retry_after)
    if [ -z "$status" ]; then why='no answer'; else why="$status $error $(text message)"; fi
    case $status:$error in
      2??:*)
        echo "$url: accepted"
        accepted=$((accepted + 1))
        continue
        ;;
      :* | 429:* | 5??:* | 400:HostNotFound)
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
  set -f -- $later
done

[ "$accepted" -gt 0 ] && { [ "$need" = one ] || [ "$failed" -eq 0 ]; }
