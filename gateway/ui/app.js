// The live page: a list of runs kept current by one websocket, and one run in detail.
// State is what the stream said; everything on the page is drawn from it. All text goes in as text
// nodes, never as markup.

import * as costs from "./costs.js";
import { h } from "./element.js";
import { loadPages } from "./pages.js";

const SHOWN = 300;
const BEHIND = 100;
const TERMINAL = new Set(["SUCCESS", "FAILED", "CANCELLED", "TIMED_OUT"]);
const UNDOING = ".compensate";
const COSTS = "costs";
const $ = (id) => document.getElementById(id);

// --- runs as told by snapshots and decisions -----------------------------------------------------

const runs = new Map();
const behind = new Map(); // run that is being asked for → decisions heard meanwhile
const EVENT_ROWS = 200;
const SHOWN_WAITING = 10;
let detail = null; // the run shown beside the list: {id, run, events}
let olderCursor = null;

function millis(time) {
  return time === null || time === undefined ? null : typeof time === "number" ? time : Date.parse(time);
}

/** The run as the store has it, with the steps of so many pages; null where it is not to be had. */
async function loadRun(id, pages = 1) {
  const view = await loadPages(`/api/runs/${encodeURIComponent(id)}`, "steps", pages);
  return view.problem ? null : fromView(view);
}

/** A run of the REST interface in the page's own form. */
function fromView(view) {
  return {
    id: view.id, workflow: view.workflow, version: view.version, project: view.project,
    status: view.status, seq: view.seq, trigger: view.trigger, error: view.error,
    startedAt: millis(view.startedAt), finishedAt: millis(view.finishedAt),
    nodes: new Map((view.steps ?? []).map((step) => [step.id, step])), total: view.nodes,
    paused: view.paused, view,
  };
}

/** Apply a decision; one that the run includes already changes nothing. */
function apply(run, decision) {
  decision.events.forEach((event, index) => {
    if (decision.seq + index <= run.seq) return;
    applyEvent(run, event, decision.at);
  });
  run.seq = Math.max(run.seq, decision.seq + decision.events.length - 1);
  run.status = decision.status;
  if (TERMINAL.has(run.status) && run.finishedAt === null) run.finishedAt = decision.at;
}

function applyEvent(run, event, at) {
  if (event.type === "run.started") {
    Object.assign(run, { startedAt: at, trigger: event.trigger, total: event.nodes });
  } else if (event.type === "run.failed" || event.type === "run.timedOut") {
    run.error = event.failure;
  } else if (event.type === "run.paused" || event.type === "run.resumed" || event.type === "run.ending") {
    run.paused = event.type === "run.paused";
  }
  // Items, and what undoes a node, leave the node itself as it is.
  if (!event.node || event.item !== undefined || event.node.endsWith(UNDOING)) return;
  const node = run.nodes.get(event.node) ?? { id: event.node, status: "PENDING", attempts: 0 };
  run.nodes.set(event.node, node);
  // Without an agent (a sleep, say) it ran from its beginning to its end.
  const alone = !node.dispatchedAt;
  const began = (alone ? null : event.startedAt) ?? millis(node.startedAt) ?? at;
  const ended = (alone ? null : event.finishedAt) ?? at;
  const times = { startedAt: began, finishedAt: ended, durationMs: ended - began, progress: null };
  switch (event.type) {
    case "node.dispatched":
      Object.assign(node, {
        status: "RUNNING", agent: event.agent, action: event.action, attempts: event.attempt,
        inputs: event.inputs, dispatchedAt: at, startedAt: at, finishedAt: null, durationMs: null, error: null,
      });
      break;
    case "node.runRequested":
      Object.assign(node, {
        status: "RUNNING", attempts: event.attempt, inputs: event.inputs, dispatchedAt: at, startedAt: at,
        finishedAt: null, durationMs: null, error: null, child: { run: event.run, workflow: event.workflow },
      });
      break;
    case "node.sleeping": case "node.awaiting": case "node.fannedOut":
      Object.assign(node, { status: "RUNNING", attempts: 1, startedAt: at });
      break;
    case "node.approvalRequested": Object.assign(node, { status: "WAITING_APPROVAL", inputs: event.inputs }); break;
    case "node.progressed": node.progress = { percent: event.percent, message: event.message ?? "" }; break;
    case "node.reused": Object.assign(node, { status: "SUCCESS", output: event.output, reusedFrom: event.run }); break;
    case "node.succeeded": Object.assign(node, times, { status: "SUCCESS", output: event.output }); break;
    case "node.retrying": Object.assign(node, times, { status: "RETRYING", error: event.failure }); break;
    case "node.failed": Object.assign(node, times, { status: "FAILED", error: event.failure }); break;
    case "node.skipped": Object.assign(node, { status: "SKIPPED", reason: event.reason }); break;
    case "node.cancelled": Object.assign(node, { status: "CANCELLED", finishedAt: at }); break;
  }
}

function blankRun(decision) {
  return {
    id: decision.run, workflow: decision.workflow, version: decision.version, project: decision.project,
    status: decision.status, seq: decision.seq - 1, trigger: null, error: null,
    startedAt: decision.at, finishedAt: null, nodes: new Map(), total: null, paused: false, view: null,
  };
}

// --- drawing -------------------------------------------------------------------------------------

const rows = new Map(); // run id → its table row
const dirty = new Set();
let isDrawing = false;

function touch(id) {
  dirty.add(id);
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    draw();
  });
}

function draw() {
  const body = $("runs");
  for (const id of dirty) {
    const run = runs.get(id);
    const old = rows.get(id);
    if (!run) { old?.remove(); rows.delete(id); continue; }
    const row = drawRow(run);
    if (old) old.replaceWith(row);
    else { if (isLive(run)) row.className = "fresh"; body.insertBefore(row, placeOf(run)); }
    rows.set(id, row);
  }
  dirty.clear();
  $("empty").hidden = runs.size > 0;
  $("older").firstElementChild.hidden = olderCursor === null;
  if (detail) drawDetail();
}

/** Whether the run began a moment ago. */
function isLive(run) {
  return run.startedAt !== null && Date.now() - run.startedAt < 2000;
}

/** The row before which the run belongs: runs are sorted by start, the newest first. */
function placeOf(run) {
  for (const row of $("runs").children) {
    const other = runs.get(row.dataset.run);
    if (other && (other.startedAt < run.startedAt || (other.startedAt === run.startedAt && other.id < run.id))) return row;
  }
  return null;
}

function badge(status) {
  return h("span", { className: `badge ${status}` }, status.replace("_", " "));
}

function drawRow(run) {
  const steps = [...run.nodes.values()].filter((node) => node.status !== "PENDING");
  const chips = steps.slice(0, 8).map((node) =>
    h("span", { className: `step ${node.status}`, title: `${node.id}: ${node.status}` },
      h("b", {}, node.id), node.durationMs == null ? "" : ` ${duration(node.durationMs)}`));
  const count = run.total ? h("span", { className: "soft" }, steps.length > 8 ? `+${steps.length - 8}${run.view?.next ? "…" : ""}` : steps.length ? "" : `${run.total} ${run.total === 1 ? "step" : "steps"}`) : null;
  const row = h("tr", { tabIndex: 0 },
    h("td", {}, badge(run.status), run.paused ? badge("PAUSED") : null),
    h("td", {}, h("span", { className: "name" }, run.workflow), h("span", { className: "soft" }, ` v${run.version}`)),
    h("td", { className: "cut", title: run.trigger ? `${run.trigger.source} · ${run.trigger.id}` : "" }, run.trigger?.type ?? "…"),
    h("td", {}, h("div", { className: "steps" }, ...chips, count)),
    h("td", { className: "soft when", title: run.startedAt ? new Date(run.startedAt).toISOString() : "" }, clock(run.startedAt)),
    durationCell(run));
  row.dataset.run = run.id;
  row.setAttribute("aria-selected", String(detail?.id === run.id));
  return row;
}

function durationCell(run) {
  const cell = h("td", { className: "number" });
  if (run.finishedAt === null && run.startedAt !== null) cell.dataset.since = run.startedAt;
  cell.textContent = run.startedAt === null ? "" : duration((run.finishedAt ?? Date.now()) - run.startedAt);
  return cell;
}

function duration(ms) {
  ms = Math.max(0, ms);
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min ${Math.floor((ms % 60_000) / 1000)} s`;
  return `${Math.floor(ms / 3_600_000)} h ${Math.floor((ms % 3_600_000) / 60_000)} min`;
}

function clock(ms) {
  if (ms === null) return "";
  const time = new Date(ms);
  const today = new Date().toDateString() === time.toDateString();
  return today ? time.toLocaleTimeString() : time.toLocaleString();
}

setInterval(() => {
  for (const cell of document.querySelectorAll("[data-since]")) cell.textContent = duration(Date.now() - Number(cell.dataset.since));
}, 250);

function block(title, value) {
  if (value === undefined || value === null) return null;
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  const shown = text.length > 20_000 ? `${text.slice(0, 20_000)}\n… ${text.length - 20_000} more characters` : text;
  return h("details", {}, h("summary", {}, title), h("pre", {}, shown));
}

function drawDetail() {
  const aside = $("detail");
  const { run, events } = detail;
  if (!run) {
    aside.replaceChildren(h("h2", {}, "Run", closeButton()), h("p", { className: "soft" }, detail.text ?? "Loading…"));
    return;
  }
  const open = new Set([...aside.querySelectorAll("details[open]")].map((element) => element.dataset.key));
  const top = aside.scrollTop;
  const focused = aside.contains(document.activeElement) ? document.activeElement : null;
  const nodes = [...run.nodes.values()].map((node) => h("div", { className: "node" },
    h("p", {}, badge(node.status), h("span", { className: "name" }, node.id),
      h("span", { className: "soft" }, whatItDoes(node)),
      node.attempts > 1 ? h("span", { className: "soft" }, `attempt ${node.attempts}`) : null,
      h("span", { className: "number soft" }, node.durationMs == null ? "" : duration(node.durationMs))),
    node.error ? h("p", { className: "fault" }, `${node.error.kind}: ${node.error.message}`) : null,
    node.reason ? h("p", { className: "soft" }, node.reason) : null,
    ...remarks(node).map((line) => h("p", { className: "soft" }, line)),
    node.child ? h("p", {}, runLink(node.child.run, `Run of ${node.child.workflow}`)) : null,
    node.items ? itemsOf(node) : null,
    node.approval?.status === "PENDING" && node.status === "WAITING_APPROVAL" ? approvalForm(node.approval.id, node.approval) : null,
    keyed(block("Inputs", node.inputs), `${node.id}/in`), keyed(block("Output", node.output), `${node.id}/out`)));
  aside.replaceChildren(...[
    h("h2", {}, badge(run.status), run.paused ? badge("PAUSED") : null, run.workflow, h("span", { className: "soft" }, `v${run.version}`), closeButton()),
    h("p", { className: "soft mono" }, run.id),
    run.error ? h("p", { className: "fault" }, `${run.error.kind}: ${run.error.message}`) : null,
    ...aboutRun(run),
    ...waitingItems(run).slice(0, SHOWN_WAITING).map((id) => approvalForm(id, null)),
    moreWaiting(run),
    keyed(block("Output", run.view?.output), "output"),
    h("h3", {}, "Trigger"),
    h("p", {}, run.trigger ? `${run.trigger.type} from ${run.trigger.source}` : "…"),
    keyed(block("Data", run.trigger?.data), "data"),
    h("h3", {}, "Steps"), ...nodes,
    run.view?.next ? h("p", {}, h("span", { className: "soft" }, `${nodes.length} of ${run.total} steps `),
      h("button", { type: "button", onclick: () => showMoreSteps(detail) }, "More steps")) : null,
    h("h3", {}, `Events (${run.seq + 1})`),
    h("table", { className: "events" }, h("tbody", {}, ...events.slice(-(detail.rows ?? EVENT_ROWS)).reverse().map((event) => h("tr", {},
      h("td", { className: "soft number" }, String(event.seq)), h("td", {}, event.type),
      h("td", {}, event.node ?? ""), h("td", { className: "soft number" }, clock(event.at)))))),
    events.length > (detail.rows ?? EVENT_ROWS) || detail.older
      ? h("p", {}, h("button", { type: "button", onclick: () => showEarlier(detail) }, "Earlier events")) : null,
  ].filter((child) => child !== null));
  for (const element of aside.querySelectorAll("details")) element.open = open.has(element.dataset.key);
  aside.scrollTop = top;
  if (focused?.isConnected) focused.focus({ preventScroll: true });
}

function runLink(id, text) {
  return h("a", { href: `#${encodeURIComponent(id)}`, onclick: (event) => { event.preventDefault(); show(id); } }, text);
}

/** What a step does, where it is no agent's work. */
function whatItDoes(node) {
  if (node.kind === "workflow") return `run of ${node.workflow ?? node.child?.workflow ?? "a workflow"}`;
  if (node.kind === "delay") return "sleep";
  if (node.kind === "waitForEvent") return "wait for an event";
  return node.agent ? `${node.agent} · ${node.action}` : "";
}

function timeOf(value) {
  return new Date(millis(value)).toLocaleString();
}

/** What is to be known of a step besides its status, a line each. */
function remarks(node) {
  const lines = [];
  if (node.reusedFrom) lines.push(`Result of run ${node.reusedFrom}`);
  if (node.edited) lines.push("Inputs given by hand");
  if (node.status === "RUNNING") {
    if (node.stopping) lines.push("Told to end");
    if (node.sleepingUntil) lines.push(`Until ${timeOf(node.sleepingUntil)}`);
    if (node.awaiting) lines.push(`Waits for ${node.awaiting.event} until ${timeOf(node.awaiting.deadline)}`);
    if (node.progress) lines.push([node.progress.percent == null ? "" : `${node.progress.percent} %`, node.progress.message].join(" ").trim());
  }
  for (const answer of node.approval?.answers ?? []) {
    lines.push(`${answer.approved ? "Approved" : "Rejected"} by ${answer.by || "deadline"}${answer.inputs == null ? "" : ", inputs edited"}${answer.notes ? `: ${answer.notes}` : ""}`);
  }
  if (node.tolerated) lines.push("The run does not fail by it");
  if (node.compensation) {
    const how = { SUCCESS: "Undone", FAILED: "Could not be undone", CANCELLED: "Not undone" }[node.compensation.status] ?? "Is being undone";
    lines.push(node.compensation.error ? `${how}: ${node.compensation.error.message}` : how);
  }
  return lines;
}

/** Lines about the run itself. */
function aboutRun(run) {
  const { view } = run;
  if (!view) return [];
  const lines = [];
  if (view.origin) lines.push(h("p", {}, `${view.origin.kind} of `, runLink(view.origin.run, `run ${view.origin.run}`)));
  if (view.parent) lines.push(h("p", {}, `Step ${view.parent.node} of `, runLink(view.parent.run, `run ${view.parent.run}`)));
  if (run.paused && view.pause) lines.push(h("p", { className: "soft" }, `Paused since ${timeOf(view.pause.at)} ${view.pause.reason}`));
  if (view.ending && !TERMINAL.has(run.status)) lines.push(h("p", { className: "soft" }, `${view.ending.stage}, then ${view.ending.outcome}`));
  if (view.waitedMs) lines.push(h("p", { className: "soft" }, `Waited ${duration(view.waitedMs)} for approval`));
  if (view.cost?.length) lines.push(h("p", { className: "soft" }, `Cost ${view.cost.map((total) => `${total.amount} ${total.currency}`).join(", ")}`));
  if (!TERMINAL.has(run.status)) for (const step of view.steps ?? []) if (step.unserved) lines.push(h("p", { className: "fault" }, `${step.id}: ${step.unserved}`));
  if (view.uncompensated?.length) lines.push(h("p", { className: "fault" }, `Not undone: ${view.uncompensated.join(", ")}`));
  return lines;
}

function itemsOf(node) {
  const counts = ["succeeded", "failed", "running", "waiting", "retrying", "cancelled", "pending"]
    .filter((name) => node.items[name]).map((name) => `${node.items[name]} ${name}`);
  const shown = detail.items?.get(node.id);
  return h("div", {}, h("p", { className: "soft" }, `${node.items.total} items: ${counts.join(", ")} `,
    h("button", { type: "button", onclick: () => loadItems(detail, node.id) }, shown ? "Refresh" : "Show")),
    shown ? h("table", { className: "events" }, h("tbody", {}, ...shown.items.map((item) => h("tr", {},
      h("td", { className: "soft number" }, String(item.index)), h("td", {}, badge(item.status)),
      h("td", {}, item.error ? item.error.message : short(item.output ?? item.item)))))) : null,
    shown?.next ? h("p", { className: "soft" }, "… and more") : null);
}

function short(value) {
  const text = value === null || value === undefined ? "" : JSON.stringify(value);
  return text.length > 120 ? `${text.slice(0, 120)}…` : text;
}

async function loadItems(shown, node) {
  const answer = await fetch(`/api/runs/${encodeURIComponent(shown.id)}/nodes/${encodeURIComponent(node)}/items?limit=50`);
  if (!answer.ok) return;
  shown.items ??= new Map();
  shown.items.set(node, await answer.json());
  if (detail === shown) drawDetail();
}

/** Approvals of items: those that wait and belong to no step that shows them. */
function waitingItems(run) {
  const shown = new Set([...run.nodes.values()].map((node) => node.approval?.id));
  return (run.view?.waitingFor ?? []).filter((id) => !shown.has(id) && !TERMINAL.has(run.status));
}

function moreWaiting(run) {
  const hidden = waitingItems(run).length - SHOWN_WAITING;
  if (hidden <= 0) return null;
  const how = h("code", {}, `commandcenter approvals list --run ${run.id}`);
  return h("p", { className: "soft" }, `… and ${run.view.moreWaiting ? "more than " : ""}${hidden} more wait: `, how);
}

/** The form of an approval; it is kept while the page is drawn anew, with what was typed. */
function approvalForm(id, approval) {
  detail.forms ??= new Map();
  const kept = detail.forms.get(id);
  if (kept && kept.missing === approval?.missing) return kept.element;
  const by = h("input", { placeholder: "Your name", ariaLabel: "Your name", value: localStorage.getItem("by") ?? "" });
  const role = h("input", { placeholder: "Your roles", ariaLabel: "Your roles", value: localStorage.getItem("roles") ?? "", hidden: !(approval?.roles ?? [1]).length });
  const notes = h("input", { placeholder: "Notes (to reject: why)", ariaLabel: "Notes" });
  const said = h("p", { className: "fault", role: "status" });
  const buttons = ["approve", "reject"].map((decision) =>
    h("button", { type: "button", onclick: () => decide(decision) }, decision === "approve" ? "Approve" : "Reject"));
  async function decide(decision) {
    const roles = role.value.split(",").map((text) => text.trim()).filter(Boolean);
    localStorage.setItem("by", by.value);
    localStorage.setItem("roles", role.value);
    for (const button of buttons) button.disabled = true;
    const answer = await fetch(`/api/approvals/${encodeURIComponent(id)}/decision`, {
      method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ decision, respondedBy: by.value, notes: notes.value, roles }),
    }).catch(() => null);
    const problem = answer === null ? { detail: "The gateway does not answer." } : answer.ok ? null : await answer.json();
    said.textContent = problem ? problem.detail : "";
    for (const button of buttons) button.disabled = !problem;
  }
  const who = approval ? `${approval.needed - approval.missing} of ${approval.needed} have agreed${approval.roles.length ? `, with the role ${approval.roles.join(" or ")}` : ""}; otherwise it is ${approval.onDeadline === "approve" ? "approved" : "rejected"} at ${timeOf(approval.deadline)}` : `${id.split(":").pop()} waits`;
  const element = h("div", { className: "approval" }, h("p", { className: "soft" }, who), h("p", {}, by, role, notes, ...buttons), said);
  detail.forms.set(id, { element, missing: approval?.missing });
  return element;
}

function keyed(element, key) {
  if (element) element.dataset.key = key;
  return element;
}

function closeButton() {
  return h("button", { type: "button", ariaLabel: "Close", onclick: () => show(null) }, "×");
}

// --- the stream ----------------------------------------------------------------------------------

let socket = null;
let listId = 0; // each subscription has its own id: frames of given-up ones are dropped
let listCursor = null;
let pause = 250;
let nextId = 1;

function say(state, text) {
  $("connection").dataset.state = state;
  $("connection").lastElementChild.textContent = text;
}

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/stream`);
  socket.onopen = () => {
    pause = 250;
    subscribeList();
    if (detail) subscribeDetail();
  };
  socket.onmessage = (message) => hear(JSON.parse(message.data));
  socket.onclose = () => {
    say("lost", "Reconnecting");
    setTimeout(connect, pause);
    pause = Math.min(pause * 2, 8000);
  };
}

function send(frame) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame));
}

function filters() {
  const filter = {};
  if ($("workflow").value.trim()) filter.workflow = $("workflow").value.trim();
  if ($("status").value) filter.status = $("status").value;
  return filter;
}

function subscribeList() {
  if (listId) send({ type: "unsubscribe", id: listId });
  listId = nextId++;
  send({ type: "subscribe", id: listId, filter: filters(), ...(listCursor ? { cursor: listCursor } : {}) });
}

function subscribeDetail() {
  if (detail.sub) send({ type: "unsubscribe", id: detail.sub });
  detail.sub = nextId++;
  send({ type: "subscribe", id: detail.sub, filter: { run: detail.id }, ...(detail.cursor ? { cursor: detail.cursor } : {}) });
}

function hear(frame) {
  if (frame.type === "error") {
    if (frame.id === listId) say("lost", frame.detail);
    return;
  }
  if (frame.id === listId) hearList(frame);
  else if (detail && frame.id === detail.sub) hearDetail(frame);
}

function hearList(frame) {
  if (frame.cursor) listCursor = frame.cursor;
  if (frame.type === "resumed") say("live", "Live");
  if (frame.type === "snapshot") {
    say("live", "Live");
    clear();
    for (const view of frame.runs) runs.set(view.id, fromView(view));
    fillSteps(frame.runs.slice(0, 40));
    seekOlder(frame.runs);
    for (const id of runs.keys()) touch(id);
    draw();
  }
  if (frame.type === "events") frame.decisions.forEach(hearDecision);
}

function hearDecision(decision) {
  let run = runs.get(decision.run);
  const wanted = $("status").value;
  if (wanted && decision.status !== wanted) {
    if (run) { runs.delete(decision.run); touch(decision.run); }
    return;
  }
  if (!run && decision.seq > 0) {
    // It began before what the page knows: what came before is asked for, what comes is kept.
    if (behind.has(decision.run)) behind.get(decision.run).push(decision);
    else if (behind.size < BEHIND) { behind.set(decision.run, [decision]); askFor(decision.run); }
    return;
  }
  if (!run) {
    run = blankRun(decision);
    runs.set(run.id, run);
    trim();
  }
  apply(run, decision);
  touch(run.id);
}

/** Runs beyond what is shown are let go, the oldest first. */
function trim() {
  if (runs.size <= SHOWN) return;
  const oldest = [...runs.values()].sort((a, b) => a.startedAt - b.startedAt)[0];
  runs.delete(oldest.id);
  touch(oldest.id);
}

function clear() {
  runs.clear();
  rows.clear();
  $("runs").replaceChildren();
}

/** A snapshot has no steps: they are asked for, the newest first. */
function fillSteps(views) {
  for (const view of views) {
    if (!behind.has(view.id)) { behind.set(view.id, []); askFor(view.id); }
  }
}

const asked = [];
let isAsking = false;

/** Ask for runs one after the other, so that a burst of them does not become a burst of requests. */
async function askFor(id) {
  asked.push(id);
  if (isAsking) return;
  isAsking = true;
  while (asked.length) {
    const next = asked.shift();
    const run = await loadRun(next);
    const since = behind.get(next) ?? [];
    behind.delete(next);
    if (run) merge(run, since);
  }
  isAsking = false;
}

/** Take in a run as the store has it, then what was heard of it meanwhile. */
function merge(run, since) {
  for (const decision of since) apply(run, decision);
  const shown = runs.get(run.id);
  if (shown && shown.seq > run.seq) {
    for (const [id, node] of run.nodes) if (!shown.nodes.has(id)) shown.nodes.set(id, node);
    shown.trigger ??= run.trigger;
    shown.total ??= run.total;
    shown.startedAt = run.startedAt ?? shown.startedAt;
  } else {
    const { workflow, status } = filters();
    if ((status && run.status !== status) || (workflow && run.workflow !== workflow)) return;
    if (!shown && runs.size >= SHOWN) return;
    runs.set(run.id, run);
  }
  touch(run.id);
}

function seekOlder(views) {
  olderCursor = views.length >= 100 ? "first" : null;
}

async function loadOlder() {
  const query = new URLSearchParams({ limit: "100", ...filters() });
  if (olderCursor && olderCursor !== "first") query.set("cursor", olderCursor);
  const answer = await fetch(`/api/runs?${query}`);
  if (!answer.ok) return;
  const page = await answer.json();
  const fresh = page.runs.filter((view) => !runs.has(view.id));
  for (const view of fresh) { runs.set(view.id, fromView(view)); touch(view.id); }
  olderCursor = page.next;
  fillSteps(fresh.slice(0, 40));
  if (fresh.length === 0 && olderCursor) await loadOlder();
}

function hearDetail(frame) {
  if (frame.cursor) detail.cursor = frame.cursor;
  if (frame.type === "snapshot") {
    detail.run = frame.run ? fromView(frame.run) : null;
    detail.text = frame.run ? null : "This run is not recorded yet.";
    detail.events = [];
    detail.older = null;
    if (frame.run) loadEvents(detail);
    if (frame.run?.next && detail.pages > 1) refresh(detail);
  }
  if (frame.type === "events") {
    for (const decision of frame.decisions) {
      detail.run ??= blankRun(decision);
      addEvents(detail, decision.events.map((event, index) => ({ seq: decision.seq + index, at: decision.at, type: event.type, node: placeOfEvent(event) })));
      apply(detail.run, decision);
    }
    refresh(detail);
  }
  drawDetail();
}

/** Ask for the run with all that the events tell, once they are recorded: a moment after they were heard. */
function refresh(shown) {
  if (shown.refreshing) return;
  shown.refreshing = setTimeout(async () => {
    const asked = performance.now();
    const run = await loadRun(shown.id, shown.pages);
    shown.refreshing = 0;
    shown.pause = Math.max(300, 5 * (performance.now() - asked)); // a run with many items takes its time
    if (detail !== shown || !run) return;
    if (run.seq < (shown.run?.seq ?? -1)) { refresh(shown); return; }
    shown.run = run;
    drawDetail();
  }, shown.pause ?? 300);
}

/** The steps of one page more. */
async function showMoreSteps(shown) {
  shown.pages += 1;
  const run = await loadRun(shown.id, shown.pages);
  if (detail !== shown || !run) return;
  if (run.seq < shown.run.seq) { refresh(shown); return; }
  shown.run = run;
  drawDetail();
}

/** More rows of the table of events, loaded where they are not there yet. */
async function showEarlier(shown) {
  shown.rows = (shown.rows ?? EVENT_ROWS) + EVENT_ROWS;
  if (shown.older && shown.events.length < shown.rows) await loadEvents(shown);
  else drawDetail();
}

/** The newest events, and with every further call those before. */
async function loadEvents(shown) {
  const before = shown.older ? `&cursor=${encodeURIComponent(shown.older)}` : "";
  const answer = await fetch(`/api/runs/${encodeURIComponent(shown.id)}/events?order=newest${before}`);
  if (!answer.ok) return;
  const page = await answer.json();
  shown.older = page.next;
  addEvents(shown, page.events.map((view) => ({ seq: view.seq, at: millis(view.at), type: view.type, node: placeOfEvent(view.event) })));
  if (detail === shown) drawDetail();
}

/** The node that an event is about, with its item. */
function placeOfEvent(event) {
  return event.item === undefined ? event.node : `${event.node}[${event.item}]`;
}

function addEvents(shown, events) {
  const known = new Map(shown.events.map((event) => [event.seq, event]));
  for (const event of events) known.set(event.seq, event);
  shown.events = [...known.values()].sort((a, b) => a.seq - b.seq);
}

/** Costs take the list's place, or give it back. */
function showCosts(wanted) {
  if (wanted) show(null);
  $("costs").hidden = !wanted;
  $("list").hidden = wanted;
  $("filters").classList.toggle("away", wanted);
  for (const [id, here] of [["to-costs", wanted], ["to-runs", !wanted]]) {
    if (here) $(id).setAttribute("aria-current", "page");
    else $(id).removeAttribute("aria-current");
  }
  document.title = `CommandCenter · ${wanted ? "costs" : "runs"}`;
  if (wanted) costs.start($("costs"));
  else costs.stop();
}

function goTo() {
  const place = decodeURIComponent(location.hash.slice(1));
  showCosts(place === COSTS);
  if (place !== COSTS && place !== detail?.id) show(place || null);
}

function show(id) {
  if (detail?.sub) send({ type: "unsubscribe", id: detail.sub });
  const before = detail?.id;
  detail = id === null ? null : { id, run: null, events: [], pages: 1 };
  $("detail").hidden = id === null;
  document.querySelector("main").classList.toggle("split", id !== null);
  if (location.hash.slice(1) !== COSTS) history.replaceState(null, "", id === null ? location.pathname : `#${encodeURIComponent(id)}`);
  for (const each of [before, id]) if (each && runs.has(each)) touch(each);
  if (detail) { subscribeDetail(); drawDetail(); }
}

// --- what people do ------------------------------------------------------------------------------

/** Show a run that was chosen in the list; where the page is narrow it stands above the list. */
function open(id) {
  show(id);
  if (matchMedia("(max-width: 980px)").matches) scrollTo(0, 0);
}

$("runs").addEventListener("click", (event) => {
  const row = event.target.closest("tr");
  if (row) open(row.dataset.run);
});
$("runs").addEventListener("keydown", (event) => {
  const row = event.target.closest("tr");
  if (row && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); open(row.dataset.run); }
});
addEventListener("keydown", (event) => { if (event.key === "Escape" && detail) show(null); });
$("older").firstElementChild.addEventListener("click", loadOlder);
$("filters").addEventListener("submit", (event) => event.preventDefault());
let typing = 0;
$("filters").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => { listCursor = null; clear(); subscribeList(); }, 250);
});

addEventListener("hashchange", goTo);
goTo();
connect();
