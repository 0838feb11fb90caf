// The page: reads, draws, and talks to the model.

const $ = id => document.getElementById(id);
const charts = FAMILIES.map((family, nth) => new Chart(family, nth));
$("charts").append(...charts.map(chart => chart.figure));

let readings = [], paused = false, reading = false, model = "";
let key = sessionStorage.getItem("arcmesh-key") || "";

function headers() {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** Asks for the key, or no longer. */
function lock(locked, wrong = "") {
  if (locked && $("key").hidden) setTimeout(() => $("key-input").focus());
  $("key").hidden = !locked;
  $("main").hidden = locked;
  $("key-wrong").textContent = wrong;
}

$("key").addEventListener("submit", event => {
  event.preventDefault();
  key = $("key-input").value;
  sessionStorage.setItem("arcmesh-key", key);
  read(true);
});

function say(text, kind = "") {
  // Only what changes is read out.
  if ($("state").textContent !== text) $("state").textContent = text;
  $("state").className = kind;
}

async function read(typed = false) {
  if (reading) return;
  reading = true;
  try {
    const live = await fetch("/live", { headers: headers() });
    if (live.status === 401) {
      const wrong = typed ? "That is not a key of this server." : "";
      lock(true, wrong);
      say("locked");
      return;
    }
    const metrics = await fetch("/metrics", { headers: headers() });
    if (!live.ok || !metrics.ok) throw new Error(`the server answers ${live.ok ? metrics.status : live.status}`);
    lock(false);
    take(await live.json(), readMetrics(await metrics.text()));
  } catch (error) {
    say(`no figures: ${error.message}`, "bad");
  } finally {
    reading = false;
  }
}

function take(live, page) {
  model = live.model;
  $("model").textContent = `${live.model} · version ${live.version}`;
  document.title = `arcmesh · ${live.model}`;
  say(live.state, live.ready ? "good" : "bad");
  const now = { at: performance.now() / 1000, page };
  readings.push(now);
  readings = readings.filter(it => now.at - it.at <= LOOK_BACK + 5 * EVERY);
  if (readings.length < 2) {
    facts(live, page, null);
    ranks(live, null);
    groups(live, page);
    return;
  }
  const all = { now, near: readings[readings.length - 2], back: readings.find(it => now.at - it.at <= LOOK_BACK) || readings[0] };
  for (const chart of charts) {
    chart.take(all);
    chart.draw();
  }
  facts(live, page, all);
  ranks(live, all);
  groups(live, page);
}

function facts(live, page, all) {
  const rate = name => all ? show(grown(all.near.page, page, name) / (all.now.at - all.near.at), "/s") : "–";
  const found = [
    ["Running", show(total(page, "vllm:num_requests_running"), "")],
    ["Waiting", show(total(page, "vllm:num_requests_waiting"), "")],
    ["Swapped", show(total(page, "vllm:num_requests_swapped"), "")],
    ["Answer tokens", rate("vllm:generation_tokens_total")],
    ["Prompt tokens", rate("vllm:prompt_tokens_total")],
    ["KV cache", show(total(page, "vllm:kv_cache_usage_perc"), "%")],
    ["KV cache holds, tokens", show(live.kv_tokens, "")],
    ["Longest sequence, tokens", show(live.model_len_max, "")],
  ];
  $("facts").replaceChildren(...found.map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value))));
}

const PARTS = ["compute", "transfer", "wait", "sample"];

function ranks(live, all) {
  const rows = live.ranks.map((rank, nth) => {
    const spent = PARTS.map(part => all ? grown(all.back.page, all.now.page, "arcmesh_rank_step_seconds_total", { rank: String(nth), part }) || 0 : 0);
    const sum = spent.reduce((one, other) => one + other, 0);
    const part = spent.map(seconds => sum ? seconds / sum : 0);
    const memory = `${digits(rank.memory_bytes / 2 ** 30)} GiB`;
    const share = all ? total(all.now.page, "arcmesh_rank_share_ratio", { rank: String(nth) }) : null;
    return html("tr", {},
      html("th", { scope: "row" }, String(nth)),
      html("td", {}, `${rank.node}, ${rank.name}`),
      html("td", {}, `${rank.device} (${rank.backend}, ${rank.threads} ${rank.threads === 1 ? "thread" : "threads"}, ${memory}), ${show(share, "%")} of the model`),
      html("td", {}, shares(part)),
      ...part.map(share => html("td", {}, sum ? show(share, "%") : "idle")));
  });
  if (!rows.length) rows.push(html("tr", {}, html("td", { colspan: 8 }, "The ranks form a group.")));
  $("rank-rows").replaceChildren(...rows);
}

function groups(live, page) {
  const waiting = total(page, "vllm:num_requests_waiting") || 0;
  const oldest = total(page, "arcmesh_oldest_waiting_seconds") || 0;
  const text = live.groups_total === 0 ? "Nobody asks for anything at this moment."
    : `${live.groups_total} have not ended; ${waiting} wait` + (waiting ? `, the oldest for ${show(oldest, "s")}.` : ".");
  $("queue-text").textContent = live.groups.length < live.groups_total ? `${text} The oldest ${live.groups.length} are shown.` : text;
  $("group-rows").replaceChildren(...live.groups.map(group => html("tr", {},
    html("td", {}, group.request),
    html("td", {}, group.stage),
    html("td", {}, show(group.age_seconds, "s")),
    html("td", {}, `${group.prompt_tokens} tokens`),
    html("td", {}, `${group.generated} of at most ${group.tokens_max} tokens`),
    html("td", {}, String(group.sequences)))));
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Go on" : "Pause";
});

read();
// A page that nobody sees asks for nothing.
setInterval(() => { if (!paused && !document.hidden && $("key").hidden) read(); }, EVERY * 1000);

// The conversation.
let messages = [], asking = null;

function line(who, text) {
  const paragraph = html("p", {}, html("b", {}, who), text);
  $("talk").append(paragraph);
  $("talk").scrollTop = $("talk").scrollHeight;
  return paragraph.lastChild;
}

$("forget").addEventListener("click", () => {
  if (asking) asking.abort();
  messages = [];
  $("talk").replaceChildren();
  $("told").textContent = "";
  $("question").focus();
});

$("stop").addEventListener("click", () => { if (asking) asking.abort(); });

$("question").addEventListener("keydown", event => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
});

$("ask").addEventListener("submit", event => {
  event.preventDefault();
  const text = $("question").value.trim();
  if (text && !asking) ask(text);
});

async function ask(text) {
  asking = new AbortController();
  $("send").disabled = true;
  $("stop").disabled = false;
  $("question").value = "";
  $("told").textContent = "The model answers.";
  // A conversation that was forgotten meanwhile is not the one that goes on.
  const talk = messages;
  talk.push({ role: "user", content: text });
  line("You", text);
  const answer = line("Model", "");
  const began = performance.now();
  try {
    const usage = await stream(answer, asking.signal);
    const spent = (performance.now() - began) / 1000;
    $("told").textContent = usage ? `${usage.completion_tokens} tokens in ${show(spent, "s")}` : "";
  } catch (error) {
    $("told").textContent = asking.signal.aborted ? "Stopped." : `No answer: ${error.message}`;
  }
  if (answer.data) talk.push({ role: "assistant", content: answer.data }); else talk.pop();
  asking = null;
  $("send").disabled = false;
  $("stop").disabled = true;
}

/** Streams an answer into a text; its usage. */
async function stream(answer, signal) {
  const body = {
    model, messages, stream: true, stream_options: { include_usage: true },
    max_tokens: Number($("tokens").value), temperature: Number($("heat").value),
  };
  const response = await fetch("/v1/chat/completions", {
    method: "POST", signal, headers: { "Content-Type": "application/json", ...headers() }, body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(((await response.json()).error || {}).message || `status ${response.status}`);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "", usage = null;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return usage;
    buffer += value;
    const events = buffer.split("\n\n");
    buffer = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: ") || event === "data: [DONE]") continue;
      const chunk = JSON.parse(event.slice(6));
      if (chunk.error) throw new Error(chunk.error.message);
      usage = chunk.usage || usage;
      for (const choice of chunk.choices) answer.data += (choice.delta && choice.delta.content) || "";
      $("talk").scrollTop = $("talk").scrollHeight;
    }
  }
}
