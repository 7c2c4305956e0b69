// What this month costs: sums and a forecast, budgets, by workflow and by tag. Asked for when it is
// opened and every half minute while it is shown. Amounts come as exact texts; here they are rounded.

import { h } from "./element.js";
import { load, loadPages } from "./pages.js";

const AGAIN_MS = 30_000;
const DAY_MS = 86_400_000;

let timer = 0;

/** Show the costs in the element, until `stop`. */
export function start(section) {
  stop();
  let pages = 1; // of budgets
  const showMore = () => { pages += 1; draw(); };
  const draw = async () => {
    const [byWorkflow, byTag, budgets] = await Promise.all([
      load("/api/costs?groupBy=workflow&limit=50"), load("/api/costs?groupBy=tag&limit=50"), loadPages("/api/budgets", "budgets", pages)]);
    const problem = [byWorkflow, byTag, budgets].find((answer) => answer.problem);
    section.replaceChildren(...(problem ? [h("p", { className: "fault" }, problem.problem)] : page(byWorkflow, byTag, budgets, showMore)));
  };
  draw();
  timer = setInterval(draw, AGAIN_MS);
}

/** Ask no more. */
export function stop() {
  clearInterval(timer);
}

function page(byWorkflow, byTag, { budgets, next }, showMore) {
  const month = new Date(byWorkflow.from).toLocaleString(undefined, { month: "long", year: "numeric", timeZone: "UTC" });
  if (!byWorkflow.totals.length && !budgets.length) {
    return [h("h2", {}, month), h("p", { className: "soft" }, "Nothing has cost anything this month.")];
  }
  return [
    h("h2", {}, month, h("span", { className: "soft" }, "to date, UTC")),
    h("div", { className: "totals" }, ...byWorkflow.totals.map((total) => grandTotal(total, byWorkflow.from))),
    h("h3", {}, "Budgets"),
    budgets.length ? budgetTable(budgets) : h("p", { className: "soft" }, "None yet: ", h("code", {}, "commandcenter costs budget set NAME AMOUNT --workflow WORKFLOW")),
    ...(next ? [h("p", {}, h("button", { type: "button", onclick: showMore }, "More budgets"))] : []),
    h("h3", {}, "By workflow"), groupTable("Workflow", byWorkflow),
    ...(byTag.groups.some((group) => group.key.tag) ? [
      h("h3", {}, "By tag"), groupTable("Tag", byTag),
      h("p", { className: "soft" }, "A cost counts for each tag of its workflow."),
    ] : []),
  ];
}

function grandTotal(total, begin) {
  return h("div", { className: "total" },
    h("p", { className: "big", title: `${total.amount} ${total.currency}` }, money(total.amount, total.currency)),
    h("p", { className: "soft" }, `at this pace ${money(forecast(Number(total.amount), begin), total.currency)} in the month`));
}

/** As budgets have it: in proportion to the time that has passed, a day at least. */
function forecast(amount, begin) {
  const first = new Date(begin);
  const next = Date.UTC(first.getUTCFullYear(), first.getUTCMonth() + 1, 1);
  const passed = Math.max(Date.now() - first.getTime(), DAY_MS);
  return amount * Math.max(1, (next - first.getTime()) / passed);
}

function budgetTable(budgets) {
  const rows = budgets.map((budget) => h("tr", {},
    h("td", { className: "name" }, budget.name),
    h("td", { className: "soft" }, budget.workflow ? `workflow ${budget.workflow}` : budget.tag ? `tag ${budget.tag}` : `project ${budget.project}`),
    h("td", {}, h("progress", { max: 100, value: Math.min(100, Number(budget.usedPercent)), className: budget.state, ariaLabel: "Used" }), h("span", { className: "soft" }, ` ${Number(budget.usedPercent).toFixed(0)} %`)),
    h("td", { className: "number" }, `${money(budget.monthToDate, budget.currency)} of ${money(budget.amount, budget.currency)}`),
    h("td", { className: "number soft" }, money(budget.forecast, budget.currency)),
    h("td", {}, h("span", { className: `badge ${budget.state}` }, budget.state.replace("_", " ")))));
  return table(["Budget", "Of", "Used", ["Spent"], ["Forecast"], "State"], rows);
}

function groupTable(title, sums) {
  const name = title.toLowerCase();
  const groups = [...sums.groups].sort((a, b) => Number(b.amount) - Number(a.amount));
  if (!groups.length) return h("p", { className: "soft" }, "Nothing.");
  const totals = new Map(sums.totals.map((total) => [total.currency, Number(total.amount)]));
  const rows = groups.map((group) => h("tr", {},
    h("td", { className: group.key[name] ? "name" : "soft" }, group.key[name] || `no ${name}`),
    h("td", { className: "number", title: `${group.amount} ${group.currency}` }, money(group.amount, group.currency)),
    h("td", { className: "number soft" }, `${(100 * Number(group.amount) / (totals.get(group.currency) || 1)).toFixed(0)} %`),
    ...["compute", "tokens", "api"].map((kind) => h("td", { className: "number soft" }, Number(group[kind]) ? money(group[kind], group.currency) : "–"))));
  const more = sums.more ? [h("tr", {}, h("td", { className: "soft", colSpan: 6 }, "… and more: commandcenter costs"))] : [];
  return table([title, ["Cost"], ["Share"], ["Compute"], ["Tokens"], ["API"]], [...rows, ...more]);
}

/** Headings in a list of their own stand above numbers. */
function table(headings, rows) {
  const cells = headings.map((each) => (typeof each === "string" ? h("th", {}, each) : h("th", { className: "number" }, each[0])));
  return h("table", {}, h("thead", {}, h("tr", {}, ...cells)), h("tbody", {}, ...rows));
}

/** An amount for people: cents, and of less than one the first two digits. */
function money(amount, currency) {
  const value = Number(amount);
  const digits = value !== 0 && Math.abs(value) < 0.01 ? { maximumSignificantDigits: 2 } : { minimumFractionDigits: 2, maximumFractionDigits: 2 };
  return `${value.toLocaleString(undefined, digits)} ${currency}`;
}
