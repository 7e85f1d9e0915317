// Opens each page in a frame of a phone's and of a desk's width, uses it as a reader would, and writes down what
// happened. `pages` is put before this script by the test.
(async () => {
  const results = {};
  for (const [name, html] of Object.entries(pages)) {
    for (const width of [390, 1200]) {
      const frame = document.createElement("iframe");
      frame.style.cssText = `width:${width}px;height:900px;border:0`;
      frame.srcdoc = html;
      await new Promise(done => { frame.onload = done; document.body.append(frame); });
      results[`${name} ${width}`] = measure(frame);
      frame.remove();
    }
  }
  document.body.textContent = "";
  const written = document.createElement("script");
  written.type = "application/json";
  written.id = "results";
  written.textContent = JSON.stringify(results).replaceAll("<", "\\u003c");
  document.body.append(written);

  function measure(frame) {
    const page = frame.contentDocument, view = frame.contentWindow, root = page.documentElement;
    const all = selector => [...page.querySelectorAll(selector)];
    const visible = element => element.getClientRects().length > 0;
    const wide = () => Math.max(root.scrollWidth, page.body.scrollWidth) - root.clientWidth;
    const rows = () => all("#class-table tbody tr").filter(visible);
    const found = { ready: root.dataset.ready, overflow: wide(), background: view.getComputedStyle(page.body).backgroundColor };

    found.sections = all("main h2").filter(visible).map(one => one.textContent);
    found.charts = all("svg.chart").filter(one => one.getBoundingClientRect().height > 40).length;
    found.small = Math.min(...all("svg.chart text").map(one => one.getBoundingClientRect().height).filter(Boolean));
    found.cut = all("svg.chart").flatMap(chart => all2(chart, "text").filter(text => {
      const box = text.getBoundingClientRect();
      return box.left < -1 || box.right > root.clientWidth + 1;
    }).map(text => text.textContent));

    found.rows = rows().length;
    if (found.rows) {
      const more = page.querySelector('[data-more="class-table"]');
      if (visible(more)) more.click();
      found.rowsOpen = rows().length;
      const search = page.querySelector('[data-filter="classes"]');
      search.value = rows()[3].cells[0].textContent.toUpperCase();
      search.dispatchEvent(new view.Event("input"));
      found.rowsFound = rows().length;
      search.value = "";
      search.dispatchEvent(new view.Event("input"));
      const heads = all("#class-table th[data-sort] button");
      const changes = () => rows().map(row => Number(row.lastElementChild.dataset.value));
      const rising = list => list.every((one, index) => !index || list[index - 1] <= one);
      found.sortedFirst = rising(changes());
      heads.at(-1).click();
      found.sortedThen = rising(changes().reverse());
    }
    const kind = page.querySelector('[data-kind="lost"]');
    if (kind) {
      kind.click();
      found.kinds = [...new Set(all(".decision").filter(visible).map(one => one.dataset.kind))];
    }
    const key = page.querySelector(".key[data-series] button");
    if (key) {
      key.click();
      found.hiddenCurves = all("svg [data-series]").filter(one => !visible(one)).length;
      key.click();
    }
    const mark = page.querySelector("svg.scatter .mark");
    if (mark) {
      mark.dispatchEvent(new view.PointerEvent("pointermove", { clientX: width(frame) - 20, clientY: 300 }));
      const tip = page.getElementById("tip"), box = tip.getBoundingClientRect();
      found.tip = tip.textContent;
      found.tipInside = box.left >= 0 && box.right <= root.clientWidth;
      mark.dispatchEvent(new view.PointerEvent("pointerleave"));
    }
    const chart = page.querySelector("[data-lines]");
    if (chart) {
      chart.dispatchEvent(new view.KeyboardEvent("keydown", { key: "ArrowLeft" }));
      found.cursor = page.getElementById("tip").textContent;
      chart.dispatchEvent(new view.FocusEvent("blur"));
    }
    all("details").forEach(one => { one.open = true; });
    found.overflowOpen = wide();
    return found;
  }

  function all2(within, selector) { return [...within.querySelectorAll(selector)]; }
  function width(frame) { return frame.contentDocument.documentElement.clientWidth; }
})();
