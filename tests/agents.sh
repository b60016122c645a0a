#!/usr/bin/env bash
# Have Codex CLI and Claude Code, installed from npm, each send a prompt through the proxy to the simulator.
# Needs Node.js 20 and npm; not part of the test suite.  Run it from any folder: bash tests/agents.sh
# AGENTS names a folder whose node_modules/ holds both; without it they are installed for this run.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT

bash tests/setup
agents=${AGENTS:-$work/npm}
if [ -z "${AGENTS:-}" ]; then
    npm install --silent --prefix "$agents" @openai/codex @anthropic-ai/claude-code
    (cd "$agents/node_modules/@anthropic-ai/claude-code" && { [ ! -f install.cjs ] || node install.cjs; })
fi

env -u OPENAI_API_KEY -u ANTHROPIC_API_KEY \
    .test-venv/bin/tornado-proxy demo --port 0 --admin-port 0 --dir "$work/demo" >"$work/demo.out" 2>"$work/demo.log" &
server=$!
for _ in $(seq 100); do grep -q 'Ctrl-C' "$work/demo.out" && break; sleep 0.1; done
eval "$(grep '^export ' "$work/demo.out")"

mkdir "$work/home" "$work/project"
export HOME=$work/home CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1
cd "$work/project"

codex() {
    "$agents/node_modules/.bin/codex" exec --skip-git-repo-check -m gpt-5.4 "$@" 'Say hello.' </dev/null
}

echo '== codex exec, over a WebSocket'
CODEX_API_KEY=$OPENAI_API_KEY codex -c "openai_base_url=\"$OPENAI_BASE_URL\""
grep -q '"endpoint":"/v1/responses".*"status":101' "$work/demo.log"

echo '== codex exec, over HTTP'
codex -c 'model_provider="proxy"' \
    -c "model_providers.proxy={name=\"proxy\",base_url=\"$OPENAI_BASE_URL\",env_key=\"OPENAI_API_KEY\",wire_api=\"responses\"}"

echo '== claude -p'
"$agents/node_modules/.bin/claude" -p 'Say hello.' --model claude-sonnet-5 </dev/null

echo '== the ledger'
cd - >/dev/null
.test-venv/bin/tornado-proxy usage --config "$work/demo/proxy.yaml" \
    --group-by endpoint,client,agent_session,agent,turn,basis

echo '== sessions in the ledger and in the transcripts of the agents'
.test-venv/bin/tornado-proxy usage --config "$work/demo/proxy.yaml" --group-by agent_session --format jsonl |
    grep -o '"agent_session": "[^"]*"' | cut -d '"' -f 4 | sort >"$work/recorded"
find "$HOME/.codex/sessions" "$HOME/.claude/projects" -name '*.jsonl' |
    grep -oE '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.jsonl$' | cut -d . -f 1 | sort >"$work/transcripts"
diff "$work/recorded" "$work/transcripts"

echo '== with a spent budget both agents show the message of the refusal'
echo 'budgets: {default_project: {budgets: [{period: month, usd: "0"}]}}' >>"$work/demo/proxy.yaml"
kill -HUP "$server"
for _ in $(seq 100); do grep -q '"message":"configuration reloaded"' "$work/demo.log" && break; sleep 0.1; done
cd "$work/project"
codex -c 'model_provider="proxy"' \
    -c "model_providers.proxy={name=\"proxy\",base_url=\"$OPENAI_BASE_URL\",env_key=\"OPENAI_API_KEY\",wire_api=\"responses\"}" \
    >"$work/codex.out" 2>&1 && exit 1
"$agents/node_modules/.bin/claude" -p 'Say hello.' --model claude-sonnet-5 </dev/null >"$work/claude.out" 2>&1 && exit 1
for agent in codex claude; do
    grep -o 'the budget of project .* is spent: 0.00 of 0.00 USD until [^;]*; ask an admin of project [^ ]* to raise it' \
        "$work/$agent.out" | head -1
done
