// The list of states, and the wipe between the scene as it was opened and as it is.
function showStates() {
  if (pending) return;                  // what waits may go further
  const list = $('states');
  list.replaceChildren(...state.history.map((name, i) => Object.assign(document.createElement('option'), {
    value: i, textContent: name[0].toUpperCase() + name.slice(1), className: i > state.undo ? 'undone' : ''})));
  list.value = state.undo;
  list.scrollTop = Math.max(0, list.scrollHeight * (state.undo + 1) / state.history.length - list.clientHeight);
}
$('states').onchange = () => edit({do: 'goto', state: +$('states').value});
$('states').onpointerup = () => $('view').focus();

let wiping = false;
const wipeCanShow = () => wiping && !before && originalOf === state.opened;
const wipeAt = pane => Math.round(pane.x + pane.w * $('wipeat').value);
function setWipe(share) { $('wipeat').value = share; draw(); }
function toggleWipe() {
  wiping = !wiping;
  $('wipe').setAttribute('aria-pressed', wiping);
  $('wipeat').hidden = !wiping;
  draw();
}
const onWipe = event => wipeCanShow()
  && Math.abs(onStage(event)[0] - wipeAt(paneAt(event))) < (event.pointerType === 'touch' ? 16 : 6);
$('wipeat').oninput = draw;

// Draws the scene as it was opened left of the line.
function paintWipe(g, pane) {
  const x = wipeAt(pane);
  g.save();
  g.beginPath(); g.rect(pane.x, pane.y, x - pane.x, pane.h); g.clip();
  g.clearRect(pane.x, pane.y, pane.w, pane.h);
  paintPane(g, pane, true);
  g.restore();
  g.fillStyle = '#000'; g.fillRect(x - 2, pane.y, 4, pane.h);
  g.fillStyle = '#fff'; g.fillRect(x - 1, pane.y, 2, pane.h);
  g.beginPath(); g.arc(x, pane.y + pane.h / 2, 9, 0, 7); g.fill();
  g.font = '12px system-ui, sans-serif'; g.strokeStyle = '#000'; g.lineWidth = 3; g.setLineDash([]);
  for (const [text, align, at] of [['before', 'right', x - 8], ['after', 'left', x + 8]]) {
    g.textAlign = align;
    g.strokeText(text, at, pane.y + pane.h - 10); g.fillText(text, at, pane.y + pane.h - 10);
  }
}
