"use strict";
const race = JSON.parse(document.getElementById("race").textContent);
const view = { x: "calls", y: "residual", problem: 0, hidden: new Set() };
const UNITS = { calls: "oracle calls", seconds: "seconds", steps: "steps" };
// More problems than this fill a screen.
const MANY = 20;
const MEASURES = { residual: "residual", gap: "value − best", held_out: "loss held out" };
const NAMES = { gap: "duality gap", held_out_error: "error held out", attacked_error: "error under attack" };
const named = (name, problem) =>
  problem.more.includes(name) ? NAMES[name] ?? name.replaceAll("_", " ") : MEASURES[name];
const SHORT = {
  max_steps: "steps", time_limit: "time", stalled: "short", precise: "✓", error: "error",
  nonfinite: "NaN", nonfinite_start: "NaN", unbounded: "−∞", interrupted: "cut",
  breakdown: "singular", not_a_root: "no root",
};
const element = id => document.getElementById(id);
const short = name => name.split("/").pop();

/* ---- how a method looks, wherever it is shown ---- */
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
const STROKES = { solid: "", dash: "6 3", dot: "2 3", dashdot: "6 3 2 3", longdash: "10 3" };
const libraries = [...new Set(race.methods.filter(m => !m.ours).map(m => m.family))];
let ourCount = 0;
const within = {};
for (const method of race.methods) {
  if (method.ours) {
    method.color = `--ours-${ourCount % 6}`;
    method.dash = DASHES[Math.floor(ourCount++ / 6) % 5];
    method.width = 2.4;
  } else {
    within[method.family] = (within[method.family] ?? -1) + 1;
    method.color = `--peer-${libraries.indexOf(method.family) % 4}`;
    method.dash = DASHES[within[method.family] % 5];
    method.width = 1.4;
  }
}
const paint = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
// Peers are drawn first, so that ours lie on top.
const drawn = race.methods.map((_, i) => i).sort((a, b) => race.methods[a].ours - race.methods[b].ours);

function text(tag, content, attributes = {}) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.textContent = content;
  return made;
}
function number(x, digits = 3) {
  if (x === null || x === undefined) return "–";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e5 || size < 1e-3) return x.toExponential(Math.max(0, digits - 2)).replace("e+", "e");
  return Number.isInteger(x) ? String(x) : String(Number(x.toPrecision(digits)));
}

/* ---- plots ---- */
function layout(more) {
  const axis = {
    type: "log", gridcolor: paint("--grid"), linecolor: paint("--faint"), zeroline: false,
    tickcolor: paint("--faint"), exponentformat: "power", automargin: true,
    title: { standoff: 10 },
  };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
    font: { family: paint("--sans"), size: 12, color: paint("--soft") }, hovermode: "closest",
    hoverlabel: { font: { family: paint("--sans"), size: 12 }, namelength: -1 },
    margin: { l: 64, r: 20, t: 16, b: 58 }, ...more,
    xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis },
  };
}
function draw(id, traces, shape, config = {}) {
  const plot = typeof id === "string" ? element(id) : id;
  plot.methods = traces.map(trace => trace.method);
  Plotly.react(plot, traces.map(({ method, ...trace }) => trace), shape,
    { displayModeBar: false, responsive: true, ...config }).then(() => emphasize(null));
}
function trace(method, x, y, more) {
  const look = race.methods[method];
  return {
    method, x, y, mode: "lines", name: look.name,
    line: { color: paint(look.color), width: look.width, dash: look.dash }, ...more,
  };
}
const measureOf = problem =>
  problem.heldOut && view.y === "held_out" || problem.more.includes(view.y) ? view.y :
  problem.sampled || problem.best === null ? (problem.sampled ? "gap" : "residual") : view.y;
/* Ticks at whole powers of ten, at most `count` of them; Plotly's own on a short axis. */
function decades(low, high, count) {
  const span = Math.log10(high / low);
  return span > 1.2 ? { dtick: Math.ceil(span / count) } : { nticks: count };
}
function convergence(index, large) {
  const problem = race.problems[index], measure = measureOf(problem);
  const runs = race.runs.filter(run => run.problem === index && run.history);
  const traces = [], starts = [], reach = [];
  let least = Infinity, most = 0;
  for (const method of drawn) {
    if (view.hidden.has(method)) continue;
    for (const run of runs.filter(run => run.method === method)) {
      const xs = [], ys = [];
      run.history[measure].forEach((y, i) => {
        const x = run.history[view.x][i];
        if (x > 0 && y !== null && y > 0) { xs.push(x); ys.push(y); }
      });
      if (!xs.length) continue;
      starts.push(ys[0]);
      reach.push(xs[0], xs.at(-1));
      least = Math.min(least, ...ys);
      most = Math.max(most, ...ys);
      const seed = runs.some(r => r.method === method && r.seed > 0) ? `, seed ${run.seed}` : "";
      traces.push(trace(method, xs, ys, {
        hovertemplate: `<b>${race.methods[method].name}</b>${seed}<br>%{x:.4g} ${UNITS[view.x]}` +
          `<br>${named(measure, problem)} %{y:.3g}<extra></extra>`,
      }));
    }
  }
  if (measure === "gap" && view.x === "calls" && problem.bound) {
    const [x, y] = problem.bound;
    traces.push({
      method: null, x, y, mode: "lines", line: { color: paint("--soft"), width: 1.5, dash: "dash" },
      hovertemplate: "no method of gradients can promise less<br>after %{x} of them: %{y:.3g}<extra></extra>",
    });
  }
  const level = { gap: problem.targetGap, residual: problem.tolerance }[measure];
  const top = Math.min(most, 100 * Math.max(...starts));
  const bottom = Math.max(least, (level ?? least) * 1e-3, top * 1e-18);
  const pad = 0.04 * Math.log10(top / bottom) + 0.05;
  const range = starts.length ? [Math.log10(bottom) - pad, Math.log10(top) + pad] : undefined;
  const shapes = level > 0 ? [{
    type: "line", xref: "paper", x0: 0, x1: 1, y0: level, y1: level, layer: "below",
    line: { color: paint("--soft"), width: 1, dash: "dot" },
  }] : [];
  const name = measure === "gap" ? "target" : "tolerance";
  const annotations = large && level > 0 ? [{
    text: name, xref: "paper", x: 1, xanchor: "right", y: Math.log10(level), yanchor: "bottom",
    showarrow: false, font: { size: 11.5, color: paint("--soft") },
  }] : [];
  const xaxis = decades(Math.min(...reach), Math.max(...reach), large ? 9 : 5);
  const yaxis = { ...decades(bottom, top, large ? 8 : 4), range };
  if (large) {
    xaxis.title = { text: UNITS[view.x] };
    yaxis.title = { text: named(measure, problem) };
    return [traces, layout({ shapes, annotations, xaxis, yaxis })];
  }
  const font = { family: paint("--sans"), size: 10.5, color: paint("--soft") };
  return [traces, layout({ shapes, font, xaxis, yaxis, margin: { l: 40, r: 6, t: 6, b: 24 } })];
}
function profile(id, kind, title) {
  const curves = race.profiles[view.x][kind];
  const ends = curves.flatMap(([xs]) => xs);
  const first = kind === "performance" ? 1 : Math.min(...ends) / 1.5, last = Math.max(...ends, first) * 1.5;
  const traces = drawn.filter(method => !view.hidden.has(method)).map(method => {
    const [xs, ys] = curves[method];
    return trace(method, [first, ...xs, last], [0, ...ys, ys.at(-1) ?? 0], {
      line: { ...trace(method).line, shape: "hv" },
      hovertemplate: `<b>${race.methods[method].name}</b><br>%{y:.0%} within %{x:.3g}<extra></extra>`,
    });
  });
  draw(id, traces, layout({
    xaxis: { title: { text: title }, range: [Math.log10(first), Math.log10(last)], ...decades(first, last, 8) },
    yaxis: { type: "linear", range: [-0.02, 1.04], tickformat: ".0%", dtick: 0.25 },
  }));
}
function emphasize(method) {
  for (const plot of document.querySelectorAll(".js-plotly-plot")) {
    plot.querySelectorAll(".scatterlayer .trace").forEach((line, i) =>
      line.classList.toggle("dim", method !== null && plot.methods[i] !== method));
  }
}

/* ---- the page ---- */
function header() {
  const [first, ...rest] = race.headline;
  element("date").textContent = race.date;
  element("headline").textContent = first;
  element("lede").textContent = rest.join(" ");
  const count = (list, test) => list.filter(test).length;
  const facts = [
    [race.problems.length, "problems"], [race.methods.length, "methods"], [race.runs.length, "runs"],
    [count(race.runs, run => run.solved), "solved"],
    [count(race.runs, run => !run.solved && run.status !== "error"), "not solved"],
    [count(race.runs, run => run.status === "error"), "raised or died"],
  ];
  for (const [figure, name] of facts) {
    const pair = document.createElement("div");
    pair.append(text("dt", name), text("dd", figure));
    element("facts").append(pair);
  }
}
function legend() {
  race.methods.forEach((method, i) => {
    const chip = text("button", "", { title: method.summary, className: method.ours ? "ours" : "" });
    chip.setAttribute("aria-pressed", "true");
    chip.innerHTML = `<svg width="24" height="8"><line x1="0" x2="24" y1="4" y2="4" stroke="var(${method.color})"` +
      ` stroke-width="${method.width + .4}" stroke-dasharray="${STROKES[method.dash]}"/></svg>`;
    chip.append(method.name);
    chip.onmouseenter = () => emphasize(i);
    chip.onmouseleave = () => emphasize(null);
    chip.onclick = () => {
      view.hidden.has(i) ? view.hidden.delete(i) : view.hidden.add(i);
      chip.setAttribute("aria-pressed", String(!view.hidden.has(i)));
      plots();
    };
    element("legend").append(chip);
  });
}
function control(name, choices) {
  const set = document.createElement("fieldset");
  for (const [value, title] of Object.entries(choices)) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name, value, checked: view[name] === value });
    input.onchange = () => { view[name] = value; plots(); matrix(); };
    label.append(input, title);
    set.append(label);
  }
  element("controls").append(set);
}
const seen = new Set();
const watcher = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) {
    isIntersecting ? seen.add(target.index) : seen.delete(target.index);
    if (isIntersecting) drawPanel(target);
  }
}, { rootMargin: "300px" });
const panels = [];
function drawPanel(panel) {
  draw(panel.querySelector(".small"), ...convergence(panel.index, false));
}
function grid() {
  // What all have shown comes first where nobody would look at each.
  if (race.problems.length > MANY) element("convergence").before(element("profiles"));
  race.problems.forEach((problem, i) => {
    const panel = Object.assign(document.createElement("div"), { className: "panel", index: i, title: "Look closer" });
    const group = problem.name.includes("/") ? problem.name.split("/")[0] + "/" : "";
    const title = document.createElement("h3");
    title.append(text("span", group), short(problem.name));
    const entered = new Set(race.runs.filter(run => run.problem === i).map(run => run.method));
    const solved = race.ratios.steps[i].filter(ratio => ratio !== null).length;
    const size = problem.size === null ? "" : `n = ${problem.size.toLocaleString("en")}, `;
    panel.append(title, text("p", `${size}${solved} of ${entered.size} solved${problem.sampled ? ", by value" : ""}`),
      Object.assign(document.createElement("div"), { className: "small" }));
    panel.onclick = () => { choose(i); element("closer").scrollIntoView({ behavior: "smooth", block: "center" }); };
    element("grid").append(panel);
    panels.push(panel);
    watcher.observe(panel);
    element("problem").append(text("option", problem.name, { value: i }));
  });
  element("problem").onchange = event => choose(Number(event.target.value));
  element("convergence-note").textContent =
    "Norm of the optimality residual, which for an objective is its gradient, against the tolerance (dotted). " +
    (race.problems.some(problem => problem.more.length) ? "Measures that a problem has of its own are shown where it has them. " : "") +
    "Where the objective is sampled, its full value above the best known, against the target. Dashed, against calls: " +
    "the gap that no method of gradients can promise to get below on functions with the constants of this one. Hover a name above to follow one method.";
}
function choose(index) {
  view.problem = index;
  element("problem").value = index;
  panels.forEach((panel, i) => panel.classList.toggle("chosen", i === index));
  const problem = race.problems[index], notes = [problem.question, `${problem.size} unknowns`];
  if (problem.best !== null) notes.push(`least value known ${number(problem.best, 9)}`);
  if (problem.sampled) notes.push(`solved where the value reaches ${number(problem.target, 6)}`);
  else if (problem.tolerance) notes.push(`solved where the residual is at most ${number(problem.tolerance)}`);
  element("problem-note").textContent = notes.join(" · ");
  draw("large", ...convergence(index, true));
}
function plots() {
  panels.filter(panel => seen.has(panel.index)).forEach(drawPanel);
  choose(view.problem);
  profile("performance", "performance", `${UNITS[view.x]} over the least of any method`);
  profile("data", "data", UNITS[view.x]);
}
function matrix() {
  const table = element("matrix"), head = document.createElement("tr");
  table.replaceChildren();
  head.append(text("th", ""));
  for (const method of race.methods) {
    const cell = text("th", "", { className: method.ours ? "ours" : "" });
    cell.append(text("div", method.name));
    head.append(cell);
  }
  table.createTHead().append(head);
  const body = table.createTBody();
  race.problems.forEach((problem, p) => {
    const row = body.insertRow();
    row.append(text("th", problem.name));
    race.methods.forEach((method, m) => {
      const runs = race.runs.filter(run => run.problem === p && run.method === m);
      const cell = row.insertCell(), ratio = race.ratios[view.x][p][m];
      const solved = runs.filter(run => run.solved).length;
      if (!runs.length) {
        Object.assign(cell, { textContent: "·", className: "quiet", title: "not raced" });
      } else if (ratio === null) {
        const worst = runs.find(run => !run.solved);
        cell.textContent = `✗ ${problem.sampled && worst.status !== "error" ? "value" : SHORT[worst.status] ?? worst.status}`;
        cell.className = "bad";
        cell.title = worst.error || race.statuses[worst.status];
      } else {
        cell.textContent = ratio < 9.95 ? ratio.toFixed(1) : number(ratio, 2);
        cell.classList.toggle("best", ratio === 1);
        const strength = Math.max(0.05, 0.5 - 0.2 * Math.log10(ratio));
        cell.style.background = `rgba(var(--tint), ${strength.toFixed(3)})`;
        cell.title = `${solved} of ${runs.length} runs solved`;
        if (runs.some(run => run.solved && run.elsewhere)) {
          cell.textContent += " ▴";
          cell.title += ", at a value above the data profile's target";
        }
      }
      if (runs.length > 1 && solved < runs.length && solved) cell.textContent += ` (${solved}/${runs.length})`;
    });
  });
  const foot = table.createTFoot().insertRow();
  foot.append(text("th", "solved"));
  race.methods.forEach((method, m) =>
    foot.append(text("td", race.ratios.steps.filter(row => row[m] !== null).length)));
  element("matrix-note").textContent =
    `Solved: ${UNITS[view.x]} over the least of any method, so 1.0 is the best. Not solved: ✗ and why. ` +
    "▴: the certificate holds at a value above the data profile's target, so near another stationary point or on a flat stretch. " +
    "With several seeds the median counts, and a method that failed with half of them has not solved the problem.";
}
function fill(table, columns, rows) {
  const head = document.createElement("tr"), body = document.createElement("tbody");
  for (const column of columns) head.append(text("th", column.title, { className: column.text ? "text" : "" }));
  for (const row of rows) {
    const line = body.insertRow();
    for (const column of columns) {
      const value = column.get(row), cell = line.insertCell();
      cell.textContent = column.show ? column.show(row) : typeof value === "number" || value === null ? number(value) : value;
      cell.className = [column.text ? "text" : "", column.style?.(row) ?? ""].join(" ");
      if (column.tip) cell.title = column.tip(row);
    }
  }
  table.replaceChildren();
  table.createTHead().append(head);
  table.append(body);
  return head;
}
function lines() {
  const known = Object.fromEntries(race.methods.map(method => [method.name, method]));
  fill(element("lines"), [
    { title: "Method", text: true, get: line => line.method, style: line => known[line.method].ours ? "ours" : "" },
    { title: "What it is", text: true, get: line => known[line.method].summary, style: () => "quiet" },
    { title: "Solved", get: line => `${line.solved} of ${race.problems.length}` },
    { title: "Fewest calls on", get: line => line.fewest_calls },
    { title: "Least time on", get: line => line.least_seconds },
    { title: "Calls / best", get: line => line.calls_ratio },
    { title: "Time / best", get: line => line.seconds_ratio },
    { title: "Stopped short", get: line => line.stopped_short },
    { title: "Errors", get: line => line.errors },
  ], race.lines);
}
const columns = [
  { title: "Problem", text: true, get: run => race.problems[run.problem].name },
  { title: "Method", text: true, get: run => race.methods[run.method].name, style: run => race.methods[run.method].ours ? "ours" : "" },
  { title: "Seed", get: run => run.seed },
  { title: "", text: true, get: run => (run.solved ? "✓" : "✗"), style: run => (run.solved ? "good" : "bad") },
  { title: "Status", text: true, get: run => run.error || run.status, style: run => "reason" + (run.error ? " bad" : ""), tip: run => run.error || race.statuses[run.status] },
  ...(race.runs.some(run => run.rate) ? [{ title: "Rate", get: run => run.rate ?? null }] : []),
  { title: "Residual", get: run => run.residual ?? null },
  { title: "Tolerance", get: run => run.tolerance ?? null },
  { title: "Value", get: run => run.value ?? null, show: run => number(run.value, 7) },
  { title: "Steps", get: run => run.steps ?? null },
  { title: "Calls", get: run => run.calls ?? null, tip: run => Object.entries(run.counts ?? {}).map(([name, n]) => `${n} × ${name}`).join(", ") },
  { title: "Seconds", get: run => run.seconds ?? null, tip: run => `median of ${run.repeats}` },
  { title: "Compile s", get: run => run.compile_seconds ?? null, style: () => "quiet" },
];
function ranks() {
  element("ranks-section").hidden = !race.ranks.length;
  const interval = ([mean, low, high]) => `${mean.toFixed(1)} (${low.toFixed(1)} to ${high.toFixed(1)})`;
  fill(element("ranks"), [
    { title: "Optimizer", text: true, get: rank => rank.method },
    { title: "Mean rank by loss", get: rank => interval(rank.loss) },
    { title: "By loss held out", get: rank => interval(rank.held_out) },
    { title: "Time of a step / least", get: rank => rank.seconds },
  ], race.ranks);
}
const sorting = { column: null, sign: 1 };
function runs() {
  const wanted = element("filter").value.toLowerCase().split(/\s+/);
  const rows = race.runs.filter(run => {
    const line = columns.filter(column => column.text).map(column => column.get(run)).join(" ").toLowerCase();
    return wanted.every(word => line.includes(word));
  });
  if (sorting.column !== null) {
    const key = columns[sorting.column].get;
    rows.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return sorting.sign * (typeof x === "number" ? x - y : x.localeCompare(y));
    });
  }
  const head = fill(element("runs"), columns, rows);
  [...head.children].forEach((cell, i) => {
    if (i === sorting.column) cell.setAttribute("aria-sort", sorting.sign > 0 ? "ascending" : "descending");
    cell.onclick = () => {
      sorting.sign = sorting.column === i ? -sorting.sign : 1;
      sorting.column = i;
      runs();
    };
  });
}
function colophon() {
  const pairs = items => items.map(item => Object.entries(item).filter(([, v]) => v !== null)
    .map(([k, v]) => `${k.replaceAll("_", " ")} ${v}`).join(", ")).join("; or ");
  const percent = x => `${number(100 * x)} %`;
  const notes = [
    ["Solved", "The certificate decides: the norm of the residual that the problem computes at the answer is at most " +
      "max(atol, rtol × that at the start), or as small as rounding allows (status precise). What a method says of itself does not count. " +
      "Its cost is that of the first look at which the residual met the tolerance."],
    ["Sampled objectives", `No method can certify its answer there. A run has solved the problem where the value over all data comes within ` +
      `${percent(race.targets.sampled)} of the way from its start to the least value known, and nothing else is asked of it.`],
    ["Oracle calls", "A value, a gradient and a product with a Hessian or Jacobian count as one each, a dense Hessian or Jacobian of n columns as n products. Calls inside line searches count."],
    ["Seconds", "Time spent stepping, one thread a process; compilation is apart, looking is free. Medians of the repeats, which a run gets as long as they fit into its time limit. SciPy's compile time is not told apart in its own column."],
    ["Profiles", `The performance profile is about certificates. The data profile asks for a value within ${percent(race.targets.exact)} of the way ` +
      "from the start to the least known, of the problem's facts or of all runs; its budget is not divided by n + 1, for with derivatives the cost of a step does not grow with n. " +
      "A method that was not raced on a problem has not solved it. Who takes part changes the curves."],
    ...(!race.ranks.length && race.runs.some(run => run.rate) ? [["Step sizes", "A method whose step size no theory gives raced at the one that, of nine in half decades from 1e-4 to 1, " +
      "did best in a shorter trial with a seed of its own, on each problem anew: it solved the problem in the fewest steps, or else ended with the least residual."]] : []),
    ...(race.ranks.length ? [["Learning rates", "Each optimizer raced at the rate that, of nine in half decades from 1e-4 to 1, " +
      "ended with the least loss over all data in a trial with a seed of its own, on each problem anew. Ranks are of the median over seeds at the end of the run; " +
      "their intervals hold 90 % of the mean ranks where problems, and seeds within them, are drawn anew. Where intervals overlap, no winner is claimed."]] : []),
    ["Settings", pairs(race.settings)], ["Seeds", race.seeds.join(", ")],
    ["Versions", pairs(race.versions)], ["Machine", pairs(race.machines)],
  ];
  for (const [title, content] of notes) {
    const note = document.createElement("div");
    note.append(text("h4", title), text("p", content));
    element("colophon").append(note);
  }
}

header();
legend();
control("x", UNITS);
const measures = Object.keys(MEASURES).filter(name =>
  race.problems.some(problem => ({ residual: !problem.sampled, gap: problem.best !== null, held_out: problem.heldOut })[name]));
const own = new Map(race.problems.flatMap(problem => problem.more.map(name => [name, named(name, problem)])));
const choices = [...measures.map(name => [name, MEASURES[name]]), ...[...own].filter(([name]) => !measures.includes(name))];
if (!choices.some(([name]) => name === view.y)) view.y = choices[0][0];
if (choices.length > 1) control("y", Object.fromEntries(choices));
// Where no problem has an objective there is no value to come near to.
element("data").parentElement.hidden = race.problems.every(problem => problem.best === null);
grid();
plots();
matrix();
ranks();
lines();
runs();
colophon();
element("filter").oninput = runs;
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", plots);
