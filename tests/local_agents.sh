#!/usr/bin/env bash
# Have clients send requests through `tornado-proxy local`, in front of the server, in front of the simulator, and compare
# both ledgers: the SDKs of OpenAI and Anthropic in Python and Node.js, LangChain, the SDK helpers, Codex CLI, Claude Code.
# Needs Node.js 20 and npm; not part of the test suite.  Run it from any folder: bash tests/local_agents.sh
# AGENTS names a folder for the clients, which a first run fills; without it they are installed for this run.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'kill "${local:-}" "${server:-}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT

bash tests/setup
agents=${AGENTS:-$work/npm}
if [ ! -d "$agents/venv" ]; then
    npm install --silent --no-audit --no-fund --prefix "$agents" \
        openai @anthropic-ai/sdk @openai/codex @anthropic-ai/claude-code
    (cd "$agents/node_modules/@anthropic-ai/claude-code" && { [ ! -f install.cjs ] || node install.cjs; })
    python3 -m venv "$agents/venv"
    "$agents/venv/bin/pip" install --quiet --disable-pip-version-check \
        openai anthropic langchain-openai langchain-anthropic
fi

# The proxy, and the helpers for the clients, are those of this folder.
export PYTHONPATH=$root
tornado_proxy() { "$root/.test-venv/bin/python" -m tornado_proxy "$@"; }
python() { "$agents/venv/bin/python" "$@"; }
wait_for() { for _ in $(seq 300); do grep -q "$1" "$2" && return; sleep 0.1; done; cat "$work"/*.log; exit 1; }

unset OPENAI_API_KEY ANTHROPIC_API_KEY ANTHROPIC_AUTH_TOKEN
export HOME=$work/home XDG_STATE_HOME=$work/state CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1
mkdir "$HOME" "$work/project"
cd "$work/project"

echo '== the server and the local proxy'
"$root/.test-venv/bin/python" -m tornado_proxy demo --port 0 --admin-port 0 --dir "$work/demo" >"$work/demo.out" 2>"$work/demo.log" &
server=$!
wait_for 'Ctrl-C' "$work/demo.out"
eval "$(grep '^export ' "$work/demo.out")"
MESHAGENT_API_URL=${OPENAI_BASE_URL%/openai/v1} MESHAGENT_TOKEN=$OPENAI_API_KEY \
    "$root/.test-venv/bin/python" -m tornado_proxy local --port 0 >"$work/local.out" 2>"$work/local.log" &
local=$!
token=$OPENAI_API_KEY
wait_for '^unset ' "$work/local.out"
eval "$(tornado_proxy env)"
grep listening "$work/local.log"

echo '== OpenAI and Anthropic SDK, Python'
python - <<'PYTHON'
import anthropic
import openai

with openai.OpenAI() as gpt, anthropic.Anthropic() as claude:
    print(gpt.responses.create(model="gpt-5-mini", input="Say hello.").output_text)
    messages = [{"role": "user", "content": "Say hello."}]
    for chunk in gpt.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=True):
        print(chunk.choices[0].delta.content or "", end="")
    print()
    with claude.messages.stream(model="claude-haiku-4-5", max_tokens=50, messages=messages) as stream:
        print("".join(stream.text_stream))
PYTHON

echo '== the helpers of tornado_proxy.sdk'
python - <<'PYTHON'
from tornado_proxy.sdk import AnthropicMessagesAdapter, OpenAIResponsesAdapter

with OpenAIResponsesAdapter("gpt-4o-mini") as gpt, AnthropicMessagesAdapter("claude-haiku-4-5") as claude:
    print("".join(gpt.stream("Say hello.")))
    print("".join(claude.stream("Say hello.")))
PYTHON

echo '== OpenAI and Anthropic SDK, Node.js'
cat >"$agents/clients.mjs" <<'JAVASCRIPT'
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

const [gpt, claude] = [new OpenAI(), new Anthropic()];
console.log((await gpt.responses.create({ model: 'gpt-5-mini', input: 'Say hello.' })).output_text);
const messages = [{ role: 'user', content: 'Say hello.' }];
for await (const chunk of await gpt.chat.completions.create({ model: 'gpt-4o-mini', messages, stream: true })) {
  process.stdout.write(chunk.choices[0].delta.content ?? '');
}
console.log();
console.log(await claude.messages.stream({ model: 'claude-haiku-4-5', max_tokens: 50, messages }).finalText());
JAVASCRIPT
node "$agents/clients.mjs"

echo '== LangChain'
python - <<'PYTHON'
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI

print(ChatOpenAI(model="gpt-4o-mini").invoke("Say hello.").content)
print("".join(chunk.text for chunk in ChatAnthropic(model="claude-haiku-4-5", max_tokens=50).stream("Say hello.")))
PYTHON

export PATH=$agents/node_modules/.bin:$PATH
echo '== launch codex'
tornado_proxy launch codex -- exec --skip-git-repo-check -m gpt-5.4 'Say hello.' </dev/null

echo '== codex with its built-in provider, over a WebSocket'
CODEX_API_KEY=$OPENAI_API_KEY codex exec --skip-git-repo-check -m gpt-5.4 \
    -c "openai_base_url=\"$OPENAI_BASE_URL\"" 'Say hello.' </dev/null

echo '== launch claude'
tornado_proxy launch claude -- -p 'Say hello.' --model claude-sonnet-5 </dev/null

echo '== claude with the variables of env'
claude -p 'Say hello.' --model claude-sonnet-5 </dev/null

grep -q '"endpoint":"/v1/responses".*"status":101' "$work/demo.log"
echo '== no token of the server is in a file of a tool, and no tool was configured'
if grep -rlF -e "$token" "$HOME"; then exit 1; fi
for file in .codex/config.toml .claude/settings.json; do
    if [ -e "$HOME/$file" ]; then echo "$file was written"; exit 1; fi
done

kill -INT "$local"
wait "$local" || true
echo '== the ledger of the local proxy, and that of the server'
tail -1 "$work/local.out"
tornado_proxy usage --group-by client,endpoint,basis
tornado_proxy usage --format jsonl >"$work/here"
tornado_proxy usage --config "$work/demo/proxy.yaml" --format jsonl >"$work/hosted"
python - "$work/here" "$work/hosted" <<'PYTHON'
import json
import sys

#: The records of a WebSocket have ids of their own on each side.
BILL = ("endpoint", "session", "client", "model", "basis", "usage", "line_items", "subtotal", "surcharge", "total")


def read(path: str) -> list[str]:
    records = [json.loads(line) for line in open(path)]
    return sorted(json.dumps([record[name] for name in BILL], sort_keys=True) for record in records)


here, hosted = read(sys.argv[1]), read(sys.argv[2])
print(len(here), "records here,", len(hosted), "at the server;", "equal" if here == hosted else "they differ:")
print("\n".join(set(here) ^ set(hosted)))
sys.exit(here != hosted)
PYTHON
