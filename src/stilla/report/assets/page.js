// What a pointer or a keyboard adds to the page: values under the pointer, hiding of series, sorting, searching,
// copying. Without this script everything can be read; it only ever shows text through textContent.
(() => {
  "use strict";
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const tip = document.getElementById("tip");

  // Tips -------------------------------------------------------------------------------------------------------

  function showTip(text, x, y) {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = x + 14 + box.width > document.documentElement.clientWidth ? x - box.width - 14 : x + 14;
    tip.style.left = `${Math.max(6, left)}px`;
    tip.style.top = `${Math.max(6, y - box.height - 12)}px`;
  }

  const hideTip = () => { tip.hidden = true; };

  for (const mark of all("[data-tip]")) {
    mark.addEventListener("pointermove", event => showTip(mark.dataset.tip, event.clientX, event.clientY));
    mark.addEventListener("pointerleave", hideTip);
    mark.addEventListener("focus", () => {
      const box = mark.getBoundingClientRect();
      showTip(mark.dataset.tip, box.right, box.top);
    });
    mark.addEventListener("blur", hideTip);
  }

  document.addEventListener("keydown", event => { if (event.key === "Escape") hideTip(); });
  window.addEventListener("scroll", hideTip, { passive: true });

  // Curves: a line at the step under the pointer, and every visible curve's value there --------------------------

  function readCurves(chart) {
    const curves = JSON.parse(chart.dataset.lines);
    const cursor = chart.querySelector(".cursor");
    const width = chart.viewBox.baseVal.width;
    const longest = curves.reduce((a, b) => (b.points.length > a.points.length ? b : a), { points: [] }).points;
    let at = -1;

    const nearest = (points, x) => points.reduce((a, b) => (Math.abs(b[2] - x) < Math.abs(a[2] - x) ? b : a));
    const hidden = name => all("[data-series]", chart).some(one => one.dataset.series === name && one.classList.contains("off"));

    function show(x, clientX, clientY) {
      const shown = curves.filter(curve => curve.points.length && !hidden(curve.name));
      if (!shown.length) return;
      const step = nearest(longest, x);
      at = longest.indexOf(step);
      cursor.setAttribute("x1", step[2]);
      cursor.setAttribute("x2", step[2]);
      cursor.setAttribute("visibility", "visible");
      const values = shown.map(curve => `${curve.name}  ${nearest(curve.points, step[2])[1]}`);
      showTip([`step ${step[0]}`, ...values].join("\n"), clientX, clientY);
    }

    function leave() {
      cursor.setAttribute("visibility", "hidden");
      hideTip();
    }

    chart.addEventListener("pointermove", event => {
      const box = chart.getBoundingClientRect();
      show((event.clientX - box.left) * width / box.width, event.clientX, event.clientY);
    });
    chart.addEventListener("pointerleave", leave);
    chart.addEventListener("blur", leave);
    chart.addEventListener("keydown", event => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move || !longest.length) return;
      event.preventDefault();
      at = Math.min(longest.length - 1, Math.max(0, at < 0 ? longest.length - 1 : at + move));
      const box = chart.getBoundingClientRect();
      show(longest[at][2], box.left + longest[at][2] * box.width / width, box.top + 60);
    });
  }

  all("[data-lines]").forEach(readCurves);

  // Legends: each entry becomes a button that hides and shows its curve ------------------------------------------

  for (const key of all(".key[data-series]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.append(...key.childNodes);
    key.append(button);
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      all("svg [data-series]", key.closest("figure")).filter(one => one.dataset.series === key.dataset.series)
        .forEach(one => one.classList.toggle("off", !on));
    });
  }

  // Lists that start short, can be searched and filtered ----------------------------------------------------------

  function makeList(list, items, tools) {
    const first = Number(list.dataset.first);
    const more = document.querySelector(`[data-more="${list.id}"]`);
    const found = tools.querySelector(".found");
    const search = tools.querySelector("input");
    const kinds = all("[data-kind]", tools);
    const texts = new Map(items().map(item => [item, item.textContent.toLowerCase()]));
    let open = false, kind = "";

    function update() {
      const words = search.value.toLowerCase().trim();
      const fits = items().filter(item => texts.get(item).includes(words) && (!kind || item.dataset.kind === kind));
      const short = !open && fits.length > first + 3;
      const shown = new Set(short ? fits.slice(0, first) : fits);
      items().forEach(item => { item.hidden = !shown.has(item); });
      found.textContent = words || kind ? `${fits.length} of ${texts.size}` : "";
      more.parentElement.hidden = !short && !(open && fits.length > first + 3);
      more.textContent = short ? `Show all ${fits.length}` : "Show fewer";
    }

    tools.hidden = items().length <= 3;
    search.addEventListener("input", update);
    more.addEventListener("click", () => { open = !open; update(); });
    for (const button of kinds) {
      button.addEventListener("click", () => {
        kind = button.dataset.kind;
        kinds.forEach(one => one.setAttribute("aria-pressed", String(one === button)));
        update();
      });
    }
    update();
    return update;
  }

  const updates = new Map();
  const classTable = document.getElementById("class-table");
  if (classTable) {
    const tools = document.querySelector('[data-tools="classes"]');
    updates.set(classTable, makeList(classTable, () => [...classTable.tBodies[0].rows], tools));
    tools.hidden = classTable.tBodies[0].rows.length <= 17;
  }
  const decisionList = document.getElementById("decision-list");
  if (decisionList) {
    makeList(decisionList, () => [...decisionList.children], document.querySelector('[data-tools="decisions"]'));
  }

  // Tables that sort by a column -----------------------------------------------------------------------------------

  function valueOf(row, column, kind) {
    const cell = row.cells[column];
    if (kind === "text") return cell.textContent.trim();
    const value = parseFloat(cell.dataset.value ?? cell.textContent);
    return Number.isNaN(value) ? Infinity : value;
  }

  for (const table of all("table[data-sortable]")) {
    for (const head of all("th[data-sort]", table)) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        all("th[aria-sort]", table).forEach(one => one.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const kind = head.dataset.sort, column = head.cellIndex, sign = down ? -1 : 1;
        const order = (a, b) => (kind === "text" ? a.localeCompare(b, undefined, { numeric: true }) : a - b || 0);
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => sign * order(valueOf(a, column, kind), valueOf(b, column, kind)));
        table.tBodies[0].append(...rows);
        updates.get(table)?.();
      });
    }
  }

  // Copying and printing -------------------------------------------------------------------------------------------

  for (const button of all("[data-copy]")) {
    button.hidden = false;
    button.setAttribute("aria-live", "polite");
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(source.textContent);
      } catch {
        // A page opened as a file may not write to the clipboard everywhere: the selection can be copied.
        getSelection().selectAllChildren(source);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
  }

  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    closed.forEach(one => { one.open = true; });
  });
  window.addEventListener("afterprint", () => closed.forEach(one => { one.open = false; }));
  document.documentElement.dataset.ready = "true";
})();
