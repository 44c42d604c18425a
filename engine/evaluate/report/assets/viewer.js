// What models wrote enters the page as text nodes alone; no call here reads text as markup.
"use strict";
(() => {
  const MOST_CELLS = 4000000;
  const ADDRESS = /^#program-(\d+)\.(\d+)(?:\.(\d+))?$/;
  const at = (id) => document.getElementById(id);

  const make = (tag, kind, ...inside) => {
    const node = document.createElement(tag);
    if (kind) node.className = kind;
    node.append(...inside);
    return node;
  };

  // Longest common subsequence of lines: [sign, line] in order; null where the tables would be too large.
  const compare = (old, young) => {
    const width = young.length + 1;
    if ((old.length + 1) * width > MOST_CELLS) return null;
    const same = new Uint16Array((old.length + 1) * width);
    for (let i = old.length - 1; i >= 0; i--)
      for (let j = young.length - 1; j >= 0; j--)
        same[i * width + j] = old[i] === young[j] ? same[(i + 1) * width + j + 1] + 1
          : Math.max(same[(i + 1) * width + j], same[i * width + j + 1]);
    const lines = [];
    let i = 0, j = 0;
    while (i < old.length || j < young.length) {
      if (i < old.length && j < young.length && old[i] === young[j]) { lines.push([" ", old[i++]]); j++; }
      else if (j >= young.length || (i < old.length && same[(i + 1) * width + j] >= same[i * width + j + 1]))
        lines.push(["-", old[i++]]);
      else lines.push(["+", young[j++]]);
    }
    return lines;
  };

  const rows = (text) => text.replace(/\s+$/, "").split("\n").map((line) => line.trimEnd());
  const share = (lines) => lines.filter(([sign]) => sign === " ").length / lines.length;

  // A program may go on from its prompt or repeat it: the nearer of the two readings is shown.
  const difference = (task, program) => {
    const readings = [task.reference, task.prompt + task.reference].map((text) => compare(rows(text), rows(program)));
    if (readings.includes(null)) return make("p", "note", "Too long to compare here.");
    const nearest = share(readings[1]) > share(readings[0]) ? readings[1] : readings[0];
    const code = document.createElement("code");
    for (const [sign, line] of nearest)
      code.append(make("span", sign === "+" ? "add" : sign === "-" ? "del" : "", `${sign} ${line}\n`));
    return make("pre", "difference", code);
  };

  const fold = (title, fill) => {
    const box = make("details", "fold", make("summary", "", title));
    box.addEventListener("toggle", () => { if (box.open && box.childElementCount === 1) box.append(...fill()); });
    return box;
  };

  const unpacked = new Map();
  const unpack = async (number) => {
    if (!unpacked.has(number)) {
      const packed = Uint8Array.from(atob(at(`programs-${number}`).textContent.trim()), (c) => c.charCodeAt(0));
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
      unpacked.set(number, JSON.parse(await new Response(stream).text()));
    }
    return unpacked.get(number);
  };

  const badge = (verdict) => make("span", `badge ${verdict === "passed" ? "ok" : "no"}`, verdict);

  const program = (task, line) => {
    const facts = [`sample ${line.sample}`];
    for (const name of ["tokens", "seed"]) if (line[name] !== undefined) facts.push(`${name} ${line[name]}`);
    if (line.finish === "length") facts.push("cut at the length limit");
    const parts = [make("p", "verdict", badge(line.verdict), make("span", "count", facts.join(" · ")))];
    if (line.detail) parts.push(make("p", "detail", line.detail));
    if (line.completion === undefined) parts.push(make("p", "note", "The folder keeps no program for this sample."));
    else parts.push(coloured(line.completion, task.language));
    if (line.stderr) parts.push(make("h4", "", "stderr"), make("pre", "stderr", line.stderr));
    if (line.completion !== undefined && task.reference)
      parts.push(fold("Difference to the reference", () => [
        make("p", "note", "− only in the reference, + only in this program"), difference(task, line.completion)]));
    if (task.prompt) parts.push(fold("Prompt", () => [coloured(task.prompt, task.language)]));
    if (task.reference) parts.push(fold("Reference", () => [coloured(task.reference, task.language)]));
    return parts;
  };

  const filter = (lines, wanted) => {
    const counts = new Map();
    for (const line of lines) counts.set(line.verdict, (counts.get(line.verdict) || 0) + 1);
    const choices = [["", `all (${lines.length})`], ...[...counts].map(([name, count]) => [name, `${name} (${count})`])];
    const keep = counts.has(wanted) ? wanted : "";
    at("verdict").replaceChildren(...choices.map(([name, text]) => new Option(text, name, false, name === keep)));
    return keep;
  };

  let shown = 0;
  const show = async (wish) => {
    const turn = ++shown;
    const task = await unpack(wish.task);
    if (turn !== shown) return;
    const lines = task.runs[wish.model] || [];
    const keep = filter(lines, at("verdict").value);
    const places = lines.map((line, place) => place).filter((place) => !keep || lines[place].verdict === keep);
    const place = places.includes(wish.place) ? wish.place : places[0];
    at("task").value = wish.task;
    at("model").value = wish.model;
    at("samples").replaceChildren(...places.map((number) => {
      const link = make("a", `sample v-${lines[number].verdict}`);
      link.href = `#program-${wish.task}.${wish.model}.${number}`;
      link.title = `sample ${lines[number].sample}: ${lines[number].verdict}`;
      link.setAttribute("aria-label", link.title);
      if (number === place) link.setAttribute("aria-current", "true");
      return link;
    }));
    at("program").replaceChildren(...(place === undefined
      ? [make("p", "note", "This model has no sample of the task.")] : program(task, lines[place])));
    step(at("previous"), wish, places[places.indexOf(place) - 1]);
    step(at("next"), wish, places[places.indexOf(place) + 1]);
    at("viewer").dataset.shown = `${wish.task}.${wish.model}.${place ?? ""}`;
  };

  const step = (button, wish, place) => {
    button.disabled = place === undefined;
    button.onclick = () => go(wish.task, wish.model, place);
  };

  const go = (task, model, place) => {
    location.hash = `#program-${task}.${model}` + (place === undefined ? "" : `.${place}`);
  };

  const follow = async (event) => {
    const found = ADDRESS.exec(location.hash);
    if (!found || !at(`programs-${found[1]}`)) return;
    const [task, model] = [Number(found[1]), Number(found[2])];
    try {
      await show({ task, model, place: found[3] === undefined ? undefined : Number(found[3]) });
    } catch (error) {
      at("program").replaceChildren(make("p", "note", `This browser cannot unpack the programs (${error.message}).`));
    }
    const from = event && ADDRESS.exec(new URL(event.oldURL).hash);
    if (!from || from[1] !== found[1]) at("viewer").scrollIntoView();
  };

  if (!at("viewer")) return;
  at("panel").hidden = false;
  const chosen = () => go(at("task").value || 0, at("model").value || 0);
  at("task").onchange = chosen;
  at("model").onchange = chosen;
  at("verdict").onchange = () => { const f = ADDRESS.exec(location.hash); if (f) show({ task: +f[1], model: +f[2] }); };
  addEventListener("hashchange", follow);
  follow();
})();
