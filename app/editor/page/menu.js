// The menu of the selected objects.
function menuItems() {
  const object = objects.get(selected), {name, styles} = state.labels[object.label], several = more.size > 0;
  const noStyles = !state.encoder || !styles;
  return [
    ['Change to ...', '', () => { if (document.body.classList.contains('folded')) actions.fold(); $('relabel').focus(); }],
    ['Random style', 'S', actions.random, noStyles],
    ['Main style', '', actions.main, noStyles],
    ['Same as ...', 'L', actions.like],
    ['Style from photo', '', actions.fromphoto, !state.encoder || !state.photo],
    ['Behind ...', 'K', actions.behind],
    ['Copy', 'D', actions.copy],
    ['Flip', 'F', actions.flip],
    ['Flip upside down', '', () => move(0, 0, {scale: [1, -1]})],
    ['Split', '', actions.split, $('split').disabled],
    [isolated ? 'Show all' : 'Isolate', 'Enter', actions.isolate],
    [several ? 'Select all of these labels' : `Select every ${name}`, 'A', selectAlike],
    [`Paint with ${name}`, '', () => { paintLabel = object.label; showPaint(); showLegend(); }],
    ['Remove', 'Delete', actions.remove],
  ];
}

// Opens the menu at a place of the window.
function openMenu(x, y) {
  if (selected === null) return;
  const menu = $('menu');
  menu.replaceChildren(...menuItems().map(([text, key, action, disabled]) => {
    const item = Object.assign(document.createElement('button'), {textContent: text, disabled: !!disabled});
    item.setAttribute('role', 'menuitem');
    if (key) item.append(Object.assign(document.createElement('kbd'), {textContent: key}));
    item.onclick = () => { closeMenu(); action(); };
    return item;
  }));
  menu.hidden = false;
  menu.style.left = `${Math.max(0, Math.min(x, innerWidth - menu.offsetWidth))}px`;
  menu.style.top = `${Math.max(0, Math.min(y, innerHeight - menu.offsetHeight))}px`;
  menu.querySelector('button').focus();
}
// Opens it beside the selected objects.
function menuByKey() {
  if (selected === null) return;
  const box = $('view').getBoundingClientRect(), [pane] = panes(), [x0, y0, x1, y1] = boxOf(selection());
  const limit = (value, most) => Math.max(0, Math.min(value, most));
  openMenu(box.left + limit(pane.x + left + zoom * (x0 + x1) / 2, box.width),
    box.top + limit(pane.y + top_ + zoom * (y0 + y1) / 2, box.height));
}
function closeMenu() {
  if ($('menu').hidden) return;
  $('menu').hidden = true;
  $('view').focus({preventScroll: true});
}

$('menu').onkeydown = event => {
  const items = [...$('menu').querySelectorAll('button:enabled')], at = items.indexOf(document.activeElement);
  const next = {ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1}[event.key];
  if (next !== undefined) items.at(next % items.length).focus();
  else if (event.key === 'Escape' || event.key === 'Tab') closeMenu();
  else if (event.key.length === 1 && event.key !== ' ')
    items.slice(at + 1).concat(items).find(({textContent}) => textContent.toLowerCase().startsWith(event.key.toLowerCase()))?.focus();
  event.stopPropagation();
  if (event.key !== 'Enter' && event.key !== ' ') event.preventDefault();
};
$('menu').oncontextmenu = event => event.preventDefault();
addEventListener('pointerdown', event => { if (!event.target.closest('#menu')) $('menu').hidden = true; }, true);
addEventListener('blur', () => { $('menu').hidden = true; });
addEventListener('resize', () => { $('menu').hidden = true; });

$('view').oncontextmenu = event => {
  event.preventDefault();
  if (!state || polygon || pickFor || !$('menu').hidden) return;
  drag = null;                          // what a long touch has begun
  const at = place(event);
  if (!inside(at)) select([]);
  else if (!onSelected(at)) selectAt(...at);
  else { if (!more.size) clicked = at; showObject(); }
  openMenu(event.clientX, event.clientY);
};
