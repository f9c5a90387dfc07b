// Tables whose headers sort: a click, or Enter on the header's button: ascending, descending, as it was.
// Without a script they are plain tables. Run again (in a notebook, by every output), it prepares the tables that are new.
(() => {
  const PREFIX = { n: 1e-9, µ: 1e-6, m: 1e-3, k: 1e3, M: 1e6, G: 1e9, T: 1e12 };
  const AMOUNT = /^[×≥≤~]?\s*([+\-−]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][+\-]?\d+)?)(?![\d.\-:\w])\s*(?:([nµmkMGT])?(?:s|B|J|W|FLOP\/s|B\/s)(?![\w/]))?/;
  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };

  const amount = (text) => {
    const found = AMOUNT.exec(text);
    return found ? parseFloat(found[1].replaceAll(",", "").replace("−", "-")) * (PREFIX[found[2]] ?? 1) : NaN;
  };
  const words = (row, column) => row.cells[column].textContent.trim().replaceAll("\u00a0", " ");
  const empty = (text) => text === "" || text === "–" || text === "—" || /^(nan|none|<na>)$/i.test(text);

  const sort = (table, column, order) => {
    const body = table.tBodies[0];
    const rows = table.initialRows ??= [...body.rows];
    if (order === "none") { body.append(...rows); return; }
    const texts = new Map(rows.map((row) => [row, words(row, column)]));
    const told = rows.filter((row) => !empty(texts.get(row)));
    const amounts = new Map(told.map((row) => [row, amount(texts.get(row))]));
    const numeric = told.every((row) => !Number.isNaN(amounts.get(row)));
    const compare = numeric
      ? (a, b) => amounts.get(a) - amounts.get(b)
      : (a, b) => texts.get(a).localeCompare(texts.get(b), undefined, { numeric: true });
    told.sort(order === "ascending" ? compare : (a, b) => compare(b, a));
    body.append(...told, ...rows.filter((row) => empty(texts.get(row))));  // what is not known comes last, either way
  };

  const sortable = (table) => {
    const head = table.tHead;
    if (!head || head.rows.length !== 1 || table.tBodies.length !== 1 || table.tBodies[0].rows.length < 2) return false;
    const width = head.rows[0].cells.length;
    return [head.rows[0], ...table.tBodies[0].rows].every(
      (row) => row.cells.length === width && [...row.cells].every((cell) => cell.colSpan === 1 && cell.rowSpan === 1),
    );
  };

  const prepare = (table) => {
    if (table.dataset.sortable || !sortable(table)) return;
    table.dataset.sortable = "true";
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      if (!cell.textContent.trim()) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...cell.childNodes);
      cell.append(button);
      cell.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const order = NEXT[cell.getAttribute("aria-sort")];
        for (const other of table.tHead.rows[0].cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
        cell.setAttribute("aria-sort", order);
        sort(table, column, order);
      });
    });
  };

  document.querySelectorAll("main table, table.labbench").forEach(prepare);

  // On paper a header stands on every page that its table goes on to, but browsers print no button a second time.
  const buttons = () => document.querySelectorAll("button.sort");
  addEventListener("beforeprint", () => buttons().forEach((button) => button.before(...button.childNodes)));
  addEventListener("afterprint", () => buttons().forEach((button) => {
    button.append(...[...button.parentNode.childNodes].filter((node) => node !== button));
  }));
})();
