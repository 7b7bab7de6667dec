"""Gradio's theme with the page's own colours; fonts are those of the visitor's computer."""

from __future__ import annotations

import gradio as gr

# No font is fetched from anywhere.
THEME = gr.themes.Soft(
    primary_hue="sky",
    neutral_hue="slate",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
    radius_size="lg",
).set(
    background_fill_primary="*neutral_100",
    checkbox_border_color="*neutral_500",
    checkbox_border_color_dark="*neutral_400",
    # Darker than the theme has them, for enough contrast with white.
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_800",
    checkbox_label_background_fill_selected="*primary_700",
    checkbox_label_background_fill_selected_dark="*primary_700",
    checkbox_label_background_fill_hover_dark="*neutral_600",
    block_label_background_fill_dark="*primary_700",
    block_label_text_color="*primary_700",
    block_title_text_color="*primary_700",
)
