"""Look and behaviour of the page: theme, style sheet and the little JavaScript that it needs."""

import gradio as gr

# Fonts of the reader's own system: nothing is fetched from elsewhere.
THEME = gr.themes.Base(
    primary_hue="teal",
    neutral_hue="slate",
    font=("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"),
    font_mono=("ui-monospace", "Menlo", "Consolas", "monospace"),
    radius_size="md",
).set(  # the defaults are too pale to read, 2.6:1 on white
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    block_label_text_color="*neutral_600",
    block_title_text_color="*neutral_700",
    block_info_text_color="*neutral_600",
    input_placeholder_color="*neutral_500",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_800",
)

CSS = """
.gradio-container { width: 100%; max-width: 1760px !important; margin: 0 auto !important; }
.gradio-container .tabitem { padding: .25rem 0; border: 0; }
.gradio-container .tab-container button.selected { color: var(--body-text-color); }
.gradio-container .tabitem > .column { gap: .9rem; }
.als-head h1 { font-size: 1.5rem; font-weight: 650; margin: 0; letter-spacing: -0.01em; }
.als-head p { margin: .15rem 0 .5rem; color: var(--body-text-color-subdued); }
.als-status a { text-decoration: underline; }
.als-model summary { cursor: pointer; font-size: .875rem; color: var(--body-text-color-subdued); }
.als-model summary strong { color: var(--body-text-color); }
.als-model p { margin: .2rem 0; font-size: .875rem; color: var(--body-text-color-subdued); }
.als-model pre { max-height: 340px; overflow: auto; font-size: .8rem; }

.als-grid { display: grid; gap: 1rem; align-items: start; margin-bottom: .5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 260px), 1fr)); }
@media (min-width: 1100px) {
  .als-of-5 { grid-template-columns: repeat(5, minmax(0, 1fr)); }
  .als-of-3 { grid-template-columns: repeat(3, minmax(0, 1fr)); max-width: 1200px; }
}
.als-gallery { display: grid; gap: .8rem; padding: 0; margin: .5rem 0; list-style: none;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 190px), 1fr)); }
.als-gallery button { all: unset; cursor: pointer; display: block; box-sizing: border-box;
  width: 100%; padding: .4rem; border-radius: 8px; border: 1px solid var(--border-color-primary);
  font-size: .82rem; line-height: 1.4; overflow-wrap: anywhere; }
.als-gallery button:hover { background: var(--background-fill-secondary); }
.als-gallery button:focus-visible { outline: 2px solid var(--color-accent); outline-offset: 2px; }
.als-gallery img { display: block; width: 100%; height: 170px; object-fit: contain;
  background: var(--background-fill-secondary); border-radius: 4px; margin-bottom: .3rem; }
.als-gallery strong, .als-gallery span { display: block; }
.als-gallery span, .als-key { color: var(--body-text-color-subdued); }
.als-key i { display: inline-block; width: 11px; height: 11px; border-radius: 3px;
  margin: 0 .25rem 0 .7rem; }
.als-row { margin: .75rem 0 .5rem; font-size: 1.05rem; font-weight: 650; }
.als-figure { margin: 0; min-width: 0; }
.als-figure h3 { margin: 0 0 .35rem; font-size: .95rem; font-weight: 600; }
.als-picture { position: relative; display: grid; place-items: center; min-height: 44px;
  grid-template-columns: minmax(0, 1fr); border-radius: 6px; overflow: hidden;
  background: var(--background-fill-secondary); }
.als-picture img { display: block; width: auto; max-width: 100%; height: auto; max-height: 560px;
  margin: 0 auto; }
#views .als-picture img { cursor: crosshair; }
.als-large { position: absolute; right: 6px; bottom: 6px; width: 32px; height: 32px; border: 0;
  border-radius: 6px; background: rgba(0, 0, 0, .6); color: #fff; cursor: pointer; font-size: 16px;
  line-height: 1; }
.als-no-fullscreen .als-large { display: none; } /* an iPhone fills its screen with videos only */
.als-picture:fullscreen { background: #000; border-radius: 0; }
.als-picture:fullscreen img { width: 100vw; height: 100vh; object-fit: contain; }
.als-nothing { display: grid; place-items: center; min-height: 180px; padding: 1rem;
  text-align: center; border: 1px dashed var(--border-color-primary); border-radius: 6px;
  color: var(--body-text-color-subdued); font-size: .9rem; }
.als-bar { display: flex; align-items: center; gap: .5rem; margin: .4rem 0 .3rem;
  font-size: .78rem; font-variant-numeric: tabular-nums; color: var(--body-text-color-subdued); }
.als-bar i { flex: 1; height: 8px; border-radius: 4px; }
.als-figure figcaption { font-size: .82rem; line-height: 1.4; margin-top: .3rem;
  color: var(--body-text-color-subdued); }
.als-note { margin: 0 0 .25rem; font-weight: 600; color: var(--body-text-color); }

.als-scroll { overflow: auto; max-height: 340px; }
#detections .als-scroll { max-height: 236px; }
#status:not(:has(p)), #sentence:not(:has(p)), #numbers:not(:has(table)),
#compare-status:not(:has(p)), #compare-numbers:not(:has(table)), #whatif-status:not(:has(p)),
#whatif-changes:not(:has(table, p)) { display: none; }
.tabitem:has(#views .als-empty) :is(#export, #own-box) { display: none; }
#own-box input { padding-inline: .3rem; appearance: textfield; } /* five digits fit a phone */
#photo .upload-container .wrap { min-height: 0; } /* else it covers the buttons below it */
#examples .gallery { flex-wrap: nowrap; gap: 6px; overflow-x: auto; }
#examples .gallery-item { flex: 1 1 0; min-width: 52px; max-width: 76px; }
#examples .gallery-item img, #examples .gallery-item .container { width: 100%; height: 52px;
  max-height: 52px; object-fit: cover; }
.als-table { border-collapse: collapse; border: 0; margin: 0; width: 100%; font-size: .875rem;
  font-variant-numeric: tabular-nums; color: var(--body-text-color); }
.als-table caption { text-align: left; padding: 0 0 .4rem; font-weight: 600; }
.als-table th, .als-table td { text-align: left; padding: .3rem .6rem; font-weight: 400; border: 0;
  border-bottom: 1px solid var(--border-color-primary); vertical-align: top; }
.als-table thead th { color: var(--body-text-color-subdued); font-size: .78rem; position: sticky;
  top: 0; background: var(--body-background-fill); }
.als-table tr[data-row] { cursor: pointer; }
.als-table tr[data-row]:not(.als-chosen):hover { background: var(--background-fill-secondary); }
.als-table tr.als-chosen { background: color-mix(in srgb, var(--color-accent) 18%, transparent); }
.als-table button { all: unset; cursor: pointer; display: flex; align-items: center; gap: .5rem; }
.als-table button i { width: 12px; height: 12px; border-radius: 3px; flex: none; }
.als-table button:focus-visible, .als-large:focus-visible, summary:focus-visible {
  outline: 2px solid var(--color-accent); outline-offset: 3px; }
.als-numbers { display: grid; gap: 1.5rem; align-items: start; margin: .5rem 0 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); }

.block:has(> .html-container) > .html-container { padding: 0; }
@media (max-width: 500px) { .tab-container button { padding: 0 .5rem; } }
@media (max-width: 500px) { .als-table th, .als-table td { padding: .3rem .3rem; } }

.als-status { margin: .2rem 0; font-size: .9rem; color: var(--body-text-color); }
.als-error { padding: .6rem .8rem; border-left: 4px solid #d64545; border-radius: 4px;
  background: color-mix(in srgb, #d64545 14%, transparent); }
.als-empty { padding: 2rem 1.5rem; text-align: center; border-radius: 8px;
  border: 1px dashed var(--border-color-primary); color: var(--body-text-color-subdued); }
.als-empty p { margin: .2rem auto; max-width: 60ch; }
.als-empty strong { color: var(--body-text-color); }
.als-small { padding: 1rem; }
"""

# Gradio's pictures of the examples have no words for who cannot see them.
NAME_EXAMPLES = """
let tries = 0;
const timer = setInterval(() => {
  const images = document.querySelectorAll('#examples .gallery-item img');
  for (const image of images)
    image.closest('.gallery-item').ariaLabel = 'Example ' + image.src.split('/').pop();
  if (images.length || ++tries > 50) clearInterval(timer);
}, 200);
"""

# Each picture can fill the screen.
ENLARGE = """
element.classList.toggle('als-no-fullscreen', !document.fullscreenEnabled);
element.addEventListener('click', (event) => {
  const button = event.target.closest('.als-large');
  if (!button) return;
  if (document.fullscreenElement) document.exitFullscreen();
  else button.closest('.als-picture').requestFullscreen();
});
"""

# A file over the limit is refused before it is sent. Gradio refuses it too, but then asks for the
# progress of an upload that never began: an error on the console.
REFUSE_LARGE = """
const refuse = (event) => {
  if (!event.target.closest?.('%(place)s')) return;
  const files = event.target.files ?? event.dataTransfer?.files ?? [];
  const sum = [...files].reduce((size, file) => size + file.size, 0);
  const large = [...files].find((file) => file.size > %(limit)d) ??
    (sum > %(together)d && {name: '', size: sum});
  if (!large) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  if (event.type === 'change') event.target.value = '';
  else event.target.dispatchEvent(new DragEvent('dragleave', {bubbles: true}));
  trigger('refuse', {name: large.name, size: large.size});
};
for (const type of ['change', 'drop']) window.addEventListener(type, refuse, true);
"""

# Clicks become a `pick`: a row of the table, or a place on a picture from 0 to 1. The table is
# drawn anew after each pick, so its scroll and, unless it went on meanwhile, the keyboard's place
# in it are put back.
PICK = """
let byTable = false;
element.addEventListener('click', (event) => {
  const row = event.target.closest('[data-row]');
  byTable = Boolean(row);
  if (row) { trigger('pick', {row: Number(row.dataset.row)}); return; }
  const image = event.target.closest('.als-picture img');
  if (!image || document.fullscreenElement) return;
  const place = image.getBoundingClientRect();
  trigger('pick', {x: (event.clientX - place.left) / place.width,
                   y: (event.clientY - place.top) / place.height});
});
watch('value', () => {
  const button = element.querySelector('.als-chosen button');
  if (!button) return;
  const list = button.closest('.als-scroll'), row = button.closest('tr');
  list.scrollTop = row.offsetTop - list.clientHeight / 2;
  const free = [null, document.body].includes(document.activeElement);
  if (byTable && free) button.focus({preventScroll: true});
});
"""
