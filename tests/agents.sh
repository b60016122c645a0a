#!/usr/bin/env bash
# Have Codex CLI and Claude Code, installed from npm, send prompts through the proxy to the simulator: over a WebSocket and
# HTTP, within budgets and limits, and refused by each of them, with the message that the user of an agent sees.
# Needs Node.js 20 and npm; not part of the test suite.  Run it from any folder: bash tests/agents.sh
# AGENTS names a folder whose node_modules/ holds both; without it they are installed for this run.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT

bash tests/setup
agents=${AGENTS:-$work/npm}
if [ -z "${AGENTS:-}" ]; then
    npm install --silent --prefix "$agents" @openai/codex @anthropic-ai/claude-code
    (cd "$agents/node_modules/@anthropic-ai/claude-code" && { [ ! -f install.cjs ] || node install.cjs; })
fi

export PYTHONPATH=$root
tornado_proxy() { "$root/.test-venv/bin/python" -m tornado_proxy "$@"; }
wait_for() {
    for _ in $(seq 300); do [ "$(grep -c "$1" "$2")" -ge "${3:-1}" ] && return; sleep 0.1; done
    echo "no $1 in $2" >&2 && exit 1
}

unset OPENAI_API_KEY ANTHROPIC_API_KEY ANTHROPIC_AUTH_TOKEN
"$root/.test-venv/bin/python" -m tornado_proxy demo --port 0 --admin-port 0 --dir "$work/demo" \
    >"$work/demo.out" 2>"$work/demo.log" &
server=$!
wait_for 'Ctrl-C' "$work/demo.out"
eval "$(grep '^export ' "$work/demo.out")"
config=$work/demo/proxy.yaml
cp "$config" "$work/proxy.yaml"

mkdir "$work/home" "$work/project"
export HOME=$work/home CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1
cd "$work/project"

codex() { "$agents/node_modules/.bin/codex" exec --skip-git-repo-check -m gpt-5.4 "$@" </dev/null; }
codex_socket() { CODEX_API_KEY=$OPENAI_API_KEY codex -c "openai_base_url=\"$OPENAI_BASE_URL\"" "$@"; }
codex_http() {
    codex -c 'model_provider="proxy"' \
        -c "model_providers.proxy={name=\"proxy\",base_url=\"$OPENAI_BASE_URL\",env_key=\"OPENAI_API_KEY\",wire_api=\"responses\"}" "$@"
}
claude() { "$agents/node_modules/.bin/claude" -p --model claude-sonnet-5 --allowedTools Bash -- "$@" </dev/null; }

# reload TEXT: add TEXT to the configuration of the demo, in place of what was added before.
reloads=0
reload() {
    { cat "$work/proxy.yaml"; echo "$1"; } >"$config"
    kill -HUP "$server"
    reloads=$((reloads + 1))
    wait_for '"message":"configuration reloaded"' "$work/demo.log" "$reloads"
}

# refused MESSAGE [AGENT...]: run the agents, fail if one succeeds, and show the MESSAGE that each of them shows.
refused() {
    local message=$1
    shift
    [ $# -gt 0 ] || set -- codex_socket codex_http claude
    for agent in "$@"; do
        if "$agent" 'Say hello.' >"$work/refused.out" 2>&1; then echo "$agent was not refused" && exit 1; fi
        grep -q "$message" "$work/refused.out" || { cat "$work/refused.out" && exit 1; }
        echo "$agent: $(grep -o "$message" "$work/refused.out" | sed -n 1p)"
    done
}

echo '== codex exec, over a WebSocket'
codex_socket 'Say hello.'
grep -q '"endpoint":"/v1/responses".*"status":101' "$work/demo.log"

echo '== codex exec, over HTTP'
codex_http 'Say hello.'

echo '== claude -p'
claude 'Say hello.'

echo '== the ledger'
tornado_proxy usage --config "$config" --group-by endpoint,client,agent_session,agent,turn,basis

echo '== sessions in the ledger and in the transcripts of the agents'
tornado_proxy usage --config "$config" --group-by agent_session --format jsonl |
    grep -o '"agent_session": "[^"]*"' | cut -d '"' -f 4 | sort >"$work/recorded"
find "$HOME/.codex/sessions" "$HOME/.claude/projects" -name '*.jsonl' |
    grep -oE '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.jsonl$' | cut -d . -f 1 | sort >"$work/transcripts"
diff "$work/recorded" "$work/transcripts"

echo '== with a budget that one request can exceed, an agent that calls tools is refused nothing'
reload 'budgets: {default_project: {budgets: [{period: month, usd: "0.9"}]}}'
codex_socket 'Run it [[sim tool=exec_command args={"cmd":"echo hi"}]]'
codex_http 'Run it [[sim tool=exec_command args={"cmd":"echo hi"}]]'
claude 'Run it [[sim tool=Bash args={"command":"echo hi","description":"greet"}]]'

echo '== a spent budget: the message of the refusal'
reload 'budgets: {default_project: {budgets: [{period: month, usd: "0"}]}}'
refused 'the budget of project .* is spent: 0\.[0-9]* of 0.00 USD until [^;]*; ask an admin of project [^ ]* to raise it'

echo '== a strict budget'
reload 'budgets: {default_project: {budgets: [{period: month, usd: "0.5", strict: true}]}}'
refused 'the budget of project .* has [0-9.]* of 0.50 USD left until [^;]*; .* to raise it'

echo '== a budget that is lowered while a session is open'
reload 'budgets: {default_project: {budgets: [{period: month, usd: "3"}]}}'
before=$(grep -c '"message":"request"' "$work/demo.log")
codex_socket 'Run it [[sim tool=exec_command args={"cmd":"sleep 6"} delay-ms=20]]' >"$work/lowered.out" 2>&1 &
lowered=$!
wait_for '"message":"request"' "$work/demo.log" $((before + 2)) # the warm-up, and the response that calls the tool
reload 'budgets: {default_project: {budgets: [{period: month, usd: "0"}]}}'
wait "$lowered" && exit 1
grep -o 'the budget of project .* is spent: [0-9.]* of 0.00 USD' "$work/lowered.out" | sed -n 1p
grep -q 'the budget of project .* is spent: [0-9.]* of 0.00 USD' "$work/lowered.out"

echo '== a stop'
reload ''
project=$(sed -n 's/^- id: //p' "$work/proxy.yaml")
tornado_proxy stop --config "$config" --project "$project" --reason 'it runs in circles'
sleep 2.5 # every server knows it within two seconds
refused 'project [^ ]* was stopped by [^ ]* at [^ ]* (it runs in circles); ask an admin of project demo to resume it'
tornado_proxy resume --config "$config" --project "$project"

echo '== a limit of tokens that is less than one request can use'
reload 'budgets: {default_project: {limits: {tokens_per_minute: 100000}}}'
refused 'this request can use [0-9]* tokens, and project demo is limited to 100000 per minute; make it smaller'

echo '== a limit of requests: the message, or a wait until the agent is served'
reload 'budgets: {default_project: {limits: {requests_per_minute: 4}}}'
for _ in 1 2 3 4; do codex_http 'Say hello.' >/dev/null 2>&1; done
CLAUDE_CODE_MAX_RETRIES=0 \
    refused 'project demo is limited to 4 requests per minute; 0 are left now; send the request again in [0-9]* s' claude
codex_socket 'Say hello.' # two requests, 15 s each
