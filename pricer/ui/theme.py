"""How the page looks, and the launch settings that keep it from asking any other host for anything.

    demo.launch(**launch_options(), app_kwargs={"routes": [plotly_route()]})

The interface itself is neutral slate: colour is kept for the two models. Text reaches WCAG AA (4.5:1) and
marks 3:1 on every surface of both themes; tests/ui/test_chart.py checks the pairs.
"""

from __future__ import annotations

import os
from typing import Any

import gradio as gr

from pricer.figures import BASE_COLOUR, TUNED_COLOUR

# The system's own fonts: nothing to download, no text that jumps. Plain strings, because gr.themes.Font would
# put the keyword `system-ui` in quotes, which turns it into the name of a font that nobody has.
SANS = ("system-ui", "-apple-system", "'Segoe UI'", "Roboto", "'Helvetica Neue'", "'Noto Sans'", "sans-serif")
MONO = ("ui-monospace", "'SF Mono'", "Menlo", "Consolas", "'DejaVu Sans Mono'", "monospace")

# Gradio's variable: (light, dark). What is missing here follows from the slate hues.
_COLOURS = {
    "body_background_fill": ("#f8fafc", "#0b1018"),
    "body_text_color": ("#0f172a", "#e2e8f0"),
    "body_text_color_subdued": ("#475569", "#94a3b8"),
    "background_fill_primary": ("#ffffff", "#111827"),
    "background_fill_secondary": ("#f1f5f9", "#1a2333"),
    "border_color_primary": ("#dbe2ea", "#2a3547"),
    "border_color_accent": ("#94a3b8", "#475569"),
    "color_accent_soft": ("#e8edf3", "#1f2a3c"),
    "link_text_color": ("#1d4ed8", "#93c5fd"),
    "link_text_color_hover": ("#1e40af", "#bfdbfe"),
    "link_text_color_active": ("#1e40af", "#bfdbfe"),
    "link_text_color_visited": ("#1d4ed8", "#93c5fd"),
    "code_background_fill": ("#f1f5f9", "#1a2333"),
    "block_background_fill": ("#ffffff", "#111827"),
    "block_label_background_fill": ("#ffffff", "#111827"),
    "block_label_text_color": ("#475569", "#cbd5e1"),
    "block_title_text_color": ("#334155", "#cbd5e1"),
    "block_info_text_color": ("#475569", "#94a3b8"),
    "input_background_fill": ("#ffffff", "#0b1018"),
    "input_border_color": ("#8492a6", "#5b6b82"),  # the outline is what shows where to type: 3:1
    "input_border_color_hover": ("#64748b", "#94a3b8"),
    "input_border_color_focus": ("#334155", "#cbd5e1"),
    "input_placeholder_color": ("#64748b", "#94a3b8"),
    "checkbox_background_color": ("#ffffff", "#0b1018"),
    "checkbox_border_color": ("#8492a6", "#5b6b82"),
    "checkbox_background_color_selected": ("#334155", "#64748b"),
    "checkbox_border_color_selected": ("#334155", "#94a3b8"),
    "checkbox_label_background_fill": ("#ffffff", "#111827"),
    "checkbox_label_background_fill_hover": ("#f1f5f9", "#1a2333"),
    "checkbox_label_background_fill_selected": ("#e8edf3", "#1f2a3c"),
    "slider_color": ("#475569", "#94a3b8"),
    "loader_color": ("#64748b", "#94a3b8"),
    "table_border_color": ("#dbe2ea", "#2a3547"),
    "table_even_background_fill": ("#ffffff", "#111827"),
    "table_odd_background_fill": ("#f8fafc", "#141d2c"),
    "button_primary_background_fill": ("#1e293b", "#e2e8f0"),
    "button_primary_background_fill_hover": ("#334155", "#ffffff"),
    "button_primary_border_color": ("#1e293b", "#e2e8f0"),
    "button_primary_border_color_hover": ("#334155", "#ffffff"),
    "button_primary_text_color": ("#ffffff", "#0f172a"),
    "button_primary_text_color_hover": ("#ffffff", "#0f172a"),
    "button_secondary_background_fill": ("#ffffff", "#1a2333"),
    "button_secondary_background_fill_hover": ("#f1f5f9", "#243044"),
    "button_secondary_border_color": ("#cbd5e1", "#3b4a61"),
    "button_secondary_border_color_hover": ("#94a3b8", "#64748b"),
    "button_secondary_text_color": ("#1e293b", "#e2e8f0"),
    "button_secondary_text_color_hover": ("#0f172a", "#ffffff"),
}

CSS = f"""
:root {{ --base: {BASE_COLOUR}; --tuned: {TUNED_COLOUR};  /* marks */
        --base-text: #475569; --tuned-text: #b45309;  /* words in the same colours */
        --focus: #2563eb; }}
.dark {{ --color-accent: #e2e8f0;  /* selected tabs; the theme has no dark twin of it */
         --base-text: #a9b6c8; --tuned-text: #f59e0b; --focus: #93c5fd; }}
.gradio-container :is(button, a, summary, input, textarea, select, [role], [tabindex]):focus-visible {{
  outline: 2px solid var(--focus) !important; outline-offset: 2px; }}  /* Gradio takes it from text boxes */
@media (prefers-reduced-motion: reduce) {{
  /* No transition at all: a short one would keep a text box from being measured as it shrinks. */
  *, *::before, *::after {{ animation-duration: 1ms !important; transition: none !important; }} }}
"""


def pricer_theme() -> gr.themes.Base:
    hues = {"primary_hue": "slate", "secondary_hue": "slate", "neutral_hue": "slate"}
    theme = gr.themes.Base(**hues, radius_size="md", font=SANS, font_mono=MONO)
    light = {name: colours[0] for name, colours in _COLOURS.items()}
    dark = {f"{name}_dark": colours[1] for name, colours in _COLOURS.items()}
    return theme.set(
        **light,
        **dark,
        color_accent="#334155",
        input_border_width="1px",
        button_border_width="1px",
        block_title_text_weight="500",
        block_title_text_size="*text_sm",
        button_large_text_size="*text_md",
    )


def silence(demo: gr.Blocks) -> gr.Blocks:
    """Takes back what Gradio sends to other hosts on its own. Call it before `launch`.

    Python side: usage statistics and a version check, which start with the first Blocks: importing this
    module turns them off below. Browser side, only on a Space opened at its own address: a header that loads
    Google Fonts and asks huggingface.co for the owner's picture; the page shows it when it knows the Space's
    name. (ZeroGPU goes by the host name and does not need it.)
    """
    demo.space_id = None
    return demo


def launch_options() -> dict[str, Any]:
    """Keyword arguments for `launch`. Add `app_kwargs` with the chart's route, and whatever is the app's."""
    return {
        "theme": pricer_theme(),
        "css": CSS,
        "ssr_mode": False,  # server rendering needs Node 24 and gains nothing here
        "pwa": False,  # on Spaces the default adds a service worker
        "run_history": False,  # would keep every call, with its texts, in the visitor's browser
        "enable_monitoring": False,  # the default publishes /monitoring
        "footer_links": ["api", "settings"],  # settings: light, dark or as the system
    }


# Gradio reads it when the first Blocks is built.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
