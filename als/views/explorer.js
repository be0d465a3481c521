// The controls of als.explore, the cell under the pointer and the box that is dragged. What is
// shown comes drawn from Python; the words come as text, never as HTML.

const MENUS = [
  ["photo", "Photo"],
  ["explain_class", "Explain"],
  ["explainer", "Last view"],
  ["colour_map", "Colours"],
  ["rule", "Scale"],
];
const SLIDERS = [
  ["threshold", "Threshold"],
  ["opacity", "Opacity"],
];
const CONTROLS = ["button", "input", "select"];
const SVG = "http://www.w3.org/2000/svg";
const DRAGGED = 5; // pixels from which a press is a box, and no click
const READERS = 6; // RoIs named for a cell, at most
const HINT = "Point at a picture: the values of the maps in that cell, and who reads it. Click a box"
  + " to explain it; drag one of your own to explain what was not detected.";

function make(kind, options = {}, ...inside) {
  const element = Object.assign(document.createElement(kind), options);
  // JupyterLab's keys are for the notebook: on a control they would fold headings, or delete cells.
  if (CONTROLS.includes(kind)) element.dataset.lmSuppressShortcuts = "true";
  element.append(...inside);
  return element;
}

function rectangle([x1, y1, x2, y2], name) {
  const rect = document.createElementNS(SVG, "rect");
  const sides = { x: x1, y: y1, width: x2 - x1, height: y2 - y1, class: name };
  for (const [key, value] of Object.entries(sides)) rect.setAttribute(key, value);
  return rect;
}

function floats(view) {
  return new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

function render({ model, el }) {
  const urls = []; // of the pictures that are shown
  let cells = null, reading = null, start = null, dragged = null;

  const choose = (name, value) => {
    if (model.get(name) === value) return; // nothing would be sent, and no answer come
    root.classList.add("als-waiting");
    model.set(name, value);
    model.save_changes();
  };
  const tell = (message) => {
    root.classList.add("als-waiting");
    model.send(message);
  };
  const controls = make("div", { className: "als-controls" });
  const sentence = make("p", { className: "als-sentence" });
  sentence.setAttribute("role", "status");
  const detections = make("div", { className: "als-detections" });
  const views = make("div", { className: "als-views" });
  const cell = make("div", { className: "als-cell" }, HINT);
  const root = make("div", { className: "als-explorer" });
  root.append(controls, sentence, detections, cell, views);
  el.append(root);

  for (const [name, words] of MENUS) {
    const select = make("select");
    const values = model.get("menus")[name];
    select.append(...values.map(([, text], i) => make("option", { value: i, textContent: text })));
    const show = () => { select.value = values.findIndex(([value]) => value === model.get(name)); };
    select.addEventListener("change", () => choose(name, values[select.value][0]));
    model.on(`change:${name}`, show);
    show();
    controls.append(make("label", {}, words, select));
  }
  for (const [name, words] of SLIDERS) {
    const slider = make("input", { type: "range", min: 0, max: 1, step: 0.01 });
    const number = make("span");
    const say = () => { number.textContent = `${words} ${Number(slider.value).toFixed(2)}`; };
    const show = () => { slider.value = model.get(name); say(); };
    slider.addEventListener("input", say);
    slider.addEventListener("change", () => choose(name, Number(slider.value)));
    model.on(`change:${name}`, show);
    show();
    controls.append(make("label", {}, number, slider));
  }

  function showSaid() {
    const said = model.get("said"), chosen = model.get("detection");
    sentence.textContent = said.sentence;
    sentence.classList.toggle("als-refused", Boolean(said.refused));
    const texts = said.detections ?? [];
    // The same ones stay, and with them the keyboard's focus.
    if (texts.join("\n") !== [...detections.children].map((b) => b.textContent).join("\n")) {
      detections.replaceChildren(...texts.map((text, row) => {
        const button = make("button", { type: "button", textContent: text });
        button.addEventListener("click", () => choose("detection", row));
        return button;
      }));
    }
    [...detections.children].forEach((b, row) => b.setAttribute("aria-pressed", row === chosen));
  }

  function showPanels() {
    urls.splice(0).forEach((url) => URL.revokeObjectURL(url));
    views.replaceChildren(...model.get("panels").map(figure));
  }

  function figure(panel) {
    const made = make("figure", {}, make("h4", { textContent: panel.title }));
    if (panel.picture) {
      const url = URL.createObjectURL(new Blob([panel.picture], { type: "image/jpeg" }));
      urls.push(url);
      const marks = document.createElementNS(SVG, "svg");
      marks.setAttribute("viewBox", "0 0 1 1");
      marks.setAttribute("preserveAspectRatio", "none");
      const image = make("img", { src: url, alt: panel.alt, draggable: false });
      const picture = make("div", { className: "als-picture" }, image, marks);
      listen(picture);
      made.append(picture);
    }
    if (panel.bar.length) {
      const strip = make("i");
      strip.style.background = panel.gradient;
      const [low, high] = panel.bar.map((text) => make("span", { textContent: text }));
      made.append(make("div", { className: "als-bar" }, low, strip, high));
    }
    const note = panel.note ? [make("p", { textContent: panel.note })] : [];
    made.append(make("figcaption", {}, ...note, panel.says));
    return made;
  }

  function listen(picture) {
    const place = (event) => {
      const frame = picture.getBoundingClientRect();
      const share = (value) => Math.min(Math.max(value, 0), 1);
      return [share((event.clientX - frame.left) / frame.width),
        share((event.clientY - frame.top) / frame.height)];
    };
    picture.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      picture.setPointerCapture(event.pointerId);
      start = { at: place(event), x: event.clientX, y: event.clientY };
    });
    picture.addEventListener("pointermove", (event) => {
      const at = place(event);
      if (start && Math.hypot(event.clientX - start.x, event.clientY - start.y) > DRAGGED) {
        dragged = [0, 1].map((i) => Math.min(start.at[i], at[i]))
          .concat([0, 1].map((i) => Math.max(start.at[i], at[i])));
        mark([rectangle(dragged, "als-drawn")]);
      } else if (!start) {
        point(at);
      }
    });
    picture.addEventListener("pointerup", (event) => {
      const box = dragged, began = start;
      start = dragged = null;
      if (box) {
        const [height, width] = model.get("said").size;
        tell({ box: box.map((share, i) => share * (i % 2 ? height : width)) });
      } else if (began) {
        const [x, y] = place(event);
        tell({ x, y });
      }
    });
    picture.addEventListener("pointercancel", () => { start = dragged = null; mark([]); });
    picture.addEventListener("pointerleave", () => {
      if (!start) { mark([]); cell.textContent = HINT; }
    });
  }

  function mark(rectangles) {
    for (const svg of views.querySelectorAll("svg")) {
      svg.replaceChildren(...rectangles.map((rect) => rect.cloneNode()));
    }
  }

  function point([x, y]) {
    if (!cells || !reading) return;
    const [rows, columns] = cells.shape, [high, wide] = cells.sides;
    const row = Math.min(Math.floor(y / high), rows - 1);
    const column = Math.min(Math.floor(x / wide), columns - 1);
    const at = (array, i) => array[(i * rows + row) * columns + column];
    const values = cells.titles.map((title, i) => `${title} ${at(cells.values, i).toPrecision(3)}`);
    const readers = reading.names.map((name, i) => ({ name, i, share: at(reading.shares, i) }))
      .filter(({ share }) => share > 0).sort((a, b) => b.share - a.share);
    const named = readers.slice(0, READERS).map(
      ({ name, i, share }) => `${name}${i === reading.chosen ? " (explained)" : ""}`
        + ` ${(100 * share).toPrecision(2)}%`,
    );
    const more = readers.length > READERS ? ` and ${readers.length - READERS} more` : "";
    cell.replaceChildren(
      make("div", { textContent: `Row ${row + 1}, column ${column + 1}: ${values.join(" · ")}` }),
      make("div", { textContent: named.length
        ? `Share of what each RoI reads that lies in this cell: ${named.join(", ")}${more}`
        : "No RoI of what is shown reads this cell." }),
    );
    mark([
      ...readers.map(({ i }) => rectangle(reading.boxes[i], "als-roi")),
      rectangle([column * wide, row * high, (column + 1) * wide, (row + 1) * high], "als-here"),
    ]);
  }

  function showCells() {
    const given = model.get("cells");
    cells = given.values ? { ...given, values: floats(given.values) } : null;
  }

  function showReading() {
    const given = model.get("reading");
    reading = given.shares ? { ...given, shares: floats(given.shares) } : null;
  }

  const heard = {
    "change:said": showSaid,
    "change:detection": showSaid,
    "change:panels": showPanels,
    "change:cells": showCells,
    "change:reading": showReading,
    "msg:custom": () => { root.classList.remove("als-waiting"); mark([]); },
  };
  for (const [event, show] of Object.entries(heard)) model.on(event, show);
  [showSaid, showPanels, showCells, showReading].forEach((show) => show());
  return () => urls.forEach((url) => URL.revokeObjectURL(url));
}

export default { render };
