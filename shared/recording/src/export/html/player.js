'use strict';
// Plays the data of this page. Recorded text becomes text nodes and nothing else.
(function () {
  const element = (id) => document.getElementById(id);
  const rows = [''], styles = [null], operations = [], times = [], notes = [], frames = [];
  const FRAME = 256, NOTE_MS = 4000, IDLE_MS = 500;

  // Read the data: rows and styles are collected, steps get their time.
  let time = 0;
  for (const block of document.querySelectorAll('script.data')) {
    for (const operation of JSON.parse(block.textContent)) {
      const kind = operation[0];
      if (kind === 0) for (let i = 1; i < operation.length; i++) rows.push(operation[i]);
      else if (kind === 1) for (let i = 1; i < operation.length; i++) styles.push(operation[i]);
      else if (kind === 4) notes.push([time + operation[1], operation[2]]);
      else {
        if (kind === 2) time += operation[1];
        operations.push(operation);
        times.push(time);
      }
    }
    block.remove();
  }
  const length = Math.max(time, notes.length ? notes[notes.length - 1][0] : 0);

  // The screen at one operation, and how it goes on.
  let shown = { at: -1, columns: 80, lines: [], cursor: [-1, -1] };
  const copy = (state) => ({ ...state, lines: state.lines.slice() });
  function apply(state, operation) {
    if (operation[0] === 3) {
      state.columns = operation[1];
      state.lines = new Array(operation[2]).fill(0);
      return;
    }
    state.cursor = [operation[2], operation[3]];
    const up = operation[4], height = state.lines.length;
    if (up > 0) for (let i = 0; i < height; i++) state.lines[i] = i + up < height ? state.lines[i + up] : 0;
    for (let i = 5; i + 1 < operation.length; i += 2) state.lines[operation[i]] = operation[i + 1];
  }
  for (const state = copy(shown); state.at < operations.length - 1;) {
    if ((state.at + 1) % FRAME === 0) frames.push(copy(state));
    state.at++;
    apply(state, operations[state.at]);
  }
  // The last operation that is not later than a time.
  function last(list, at) {
    let low = 0, high = list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle] <= at) low = middle + 1; else high = middle;
    }
    return low - 1;
  }
  function go(at) {
    const target = last(times, at);
    const frame = frames[Math.floor(target / FRAME)];
    if (frame && (target < shown.at || frame.at > shown.at)) shown = copy(frame);
    else if (target < shown.at) shown = { at: -1, columns: 80, lines: [], cursor: [-1, -1] };
    while (shown.at < target) {
      shown.at++;
      apply(shown, operations[shown.at]);
    }
  }

  // Colours of the palette.
  const BASE = ['#000000', '#cc4040', '#4e9a3f', '#c4a000', '#4a78c4', '#8a5aa8', '#2e9a9a', '#d3d7cf',
    '#666a66', '#ef5350', '#8ae234', '#fce94f', '#82aaff', '#c792ea', '#5fdede', '#ffffff'];
  function colour(value) {
    if (value >= 0x1000000) return '#' + (value & 0xffffff).toString(16).padStart(6, '0');
    if (value < 16) return BASE[value];
    if (value >= 232) { const grey = 8 + 10 * (value - 232); return 'rgb(' + [grey, grey, grey] + ')'; }
    const level = (n) => n ? 55 + 40 * n : 0, cube = value - 16;
    return 'rgb(' + [level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6)] + ')';
  }
  function span(text, style, box) {
    const made = document.createElement('span');
    made.textContent = text;
    const flags = style[2];
    ['bold', 'dim', 'italic', 'underline'].forEach((name, bit) => {
      if (flags & (1 << bit)) made.classList.add(name);
    });
    if (box) made.classList.add(box === 2 ? 'w' : 'n');
    let front = style[0] < 0 ? null : colour(style[0]), behind = style[1] < 0 ? null : colour(style[1]);
    if (flags & 16) [front, behind] = [behind || 'var(--bg)', front || 'var(--fg)'];
    if (front) made.style.color = front;
    if (behind) made.style.backgroundColor = behind;
    return made;
  }
  function fill(line, row) {
    line.textContent = '';
    if (typeof row === 'string') { line.textContent = row; return; }
    const plain = [-1, -1, 0, 0];
    for (let i = 0; i < row.length; i += 2) {
      const style = row[i + 1] ? styles[row[i + 1]] : plain;
      if (style[3]) for (const text of row[i].split('\t')) line.append(span(text, style, style[3]));
      else line.append(span(row[i], style, 0));
    }
  }
  const said = (row) => typeof row === 'string' ? row
    : row.filter((_, i) => i % 2 === 0).map((text, i) => {
      const style = styles[row[2 * i + 1]];
      return style && style[3] ? text.replaceAll('\t', '') : text;
    }).join('');

  // Drawing: only rows that are another.
  const screen = element('rows'), cursor = element('cursor'), drawn = [];
  let width = 0, matching = new Set();
  function fit() {
    const box = element('screen');
    box.style.fontSize = '16px';
    const probe = document.createElement('span');
    probe.textContent = '0'.repeat(100);
    screen.append(probe);
    const column = probe.getBoundingClientRect().width / 100 || 9.6;
    probe.remove();
    const size = 16 * (window.innerWidth - 40) / (shown.columns * column);
    box.style.fontSize = Math.max(7, Math.min(18, Math.floor(size * 4) / 4)) + 'px';
    screen.style.width = shown.columns + 'ch';
    width = shown.columns;
  }
  function draw() {
    while (screen.children.length > shown.lines.length) { screen.lastChild.remove(); drawn.pop(); }
    while (screen.children.length < shown.lines.length) {
      screen.append(document.createElement('div'));
      drawn.push(-1);
    }
    if (width !== shown.columns) fit();
    shown.lines.forEach((number, index) => {
      const line = screen.children[index];
      if (drawn[index] !== number) { fill(line, rows[number]); drawn[index] = number; }
      line.classList.toggle('hit', matching.has(number));
    });
    cursor.hidden = shown.cursor[0] < 0;
    cursor.style.top = 'calc(6px + ' + 1.25 * shown.cursor[0] + 'em)';
    cursor.style.left = 'calc(6px + ' + shown.cursor[1] + 'ch)';
  }

  // The clock.
  let position = 0, playing = false, then = 0;
  function clock(ms) {
    const seconds = Math.floor(ms / 1000), pad = (n) => String(n).padStart(2, '0');
    const hours = Math.floor(seconds / 3600);
    return (hours ? pad(hours) + ':' : '') + pad(Math.floor(seconds / 60) % 60) + ':' + pad(seconds % 60);
  }
  function show(at) {
    position = Math.max(0, Math.min(length, at));
    go(position);
    draw();
    element('seek').value = position;
    element('time').textContent = clock(position) + ' / ' + clock(length);
    const note = notes.filter((entry) => entry[0] <= position && position < entry[0] + NOTE_MS).pop();
    element('note').hidden = !note;
    element('note').textContent = note ? note[1] : '';
  }
  function toggle(on) {
    if (on && position >= length) show(0);
    playing = on;
    then = performance.now();
    element('play').textContent = on ? 'Pause' : 'Play';
  }
  setInterval(() => {
    if (!playing) return;
    const now = performance.now();
    let at = position + (now - then) * Number(element('speed').value);
    then = now;
    if (element('idle').checked) {
      const coming = times[last(times, at) + 1];
      if (coming !== undefined && coming - at > IDLE_MS) at = coming - IDLE_MS;
    }
    show(at);
    if (position >= length) toggle(false);
  }, 33);

  // Search: a match is where a row comes that says it. Upper case in what is asked makes case count.
  let asked = '', hits = [];
  function search(text) {
    asked = text;
    hits = [];
    matching = new Set();
    if (text) {
      const exact = text !== text.toLowerCase();
      rows.forEach((row, number) => {
        const line = said(row);
        if ((exact ? line : line.toLowerCase()).includes(text)) matching.add(number);
      });
      operations.forEach((operation, index) => {
        if (operation[0] !== 2) return;
        for (let i = 6; i < operation.length; i += 2) {
          if (matching.has(operation[i])) { hits.push(times[index]); break; }
        }
      });
    }
  }
  function jump(forward) {
    const text = element('find').value;
    const anew = text !== asked;
    if (anew) search(text);
    let index = forward ? hits.findIndex((at) => at > position || (anew && at === position))
      : hits.findLastIndex((at) => at < position);
    if (index < 0) index = forward ? 0 : hits.length - 1;
    element('found').textContent = !text ? '' : hits.length ? (index + 1) + ' of ' + hits.length : 'not found';
    if (hits.length) { toggle(false); show(hits[index]); } else draw();
  }

  // What people do.
  element('play').addEventListener('click', () => toggle(!playing));
  element('seek').addEventListener('input', () => show(Number(element('seek').value)));
  element('find').addEventListener('keydown', (event) => { if (event.key === 'Enter') jump(!event.shiftKey); });
  element('next').addEventListener('click', () => jump(true));
  element('back').addEventListener('click', () => jump(false));
  window.addEventListener('resize', fit);
  document.addEventListener('keydown', (event) => {
    if (event.target === element('find') || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === ' ') { event.preventDefault(); toggle(!playing); }
    else if (event.target === element('seek')) return;
    else if (event.key === 'ArrowLeft') show(position - 10000);
    else if (event.key === 'ArrowRight') show(position + 10000);
    else if (event.key === '/') { event.preventDefault(); element('find').focus(); }
    else if (event.key === 'n') jump(true);
  });
  element('play').addEventListener('keyup', (event) => { if (event.key === ' ') event.preventDefault(); });

  const about = JSON.parse(element('about').textContent);
  if (about.title) element('title').textContent = about.title;
  const facts = [['user', about.user], ['started', about.start], ['command', about.command],
    ['cluster', about.cluster], ['session', about.session]];
  element('facts').textContent = facts.filter((fact) => fact[1]).map((fact) => fact.join(' ')).join(' · ');
  element('seek').max = length;
  // A link may name a time: #t=12:31
  const named = /^#t=([0-9:.]+)$/.exec(location.hash);
  show(named ? named[1].split(':').reduce((sum, part) => 60 * sum + Number(part), 0) * 1000 || 0 : 0);
})();
