"""Sanitise the HTML of notebook outputs.

A notebook may come from anybody. A page keeps its text, tables and embedded pictures; it never runs
a script of an output, loads an address, embeds a local file, or leads away by itself. The page's
content security policy repeats these limits in the browser.
"""

import re

TAGS = frozenset(
    """
    a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption figure
    h1 h2 h3 h4 h5 h6 hr i img kbd li mark ol p pre s small span strong sub summary sup table tbody
    td tfoot th thead tr u ul
    """.split()
)
ATTRIBUTES = frozenset(
    """
    align alt class colspan data-figure height href open rowspan scope src style title width
    """.split()
)
STYLE_ID = re.compile(r"T_\w+")
"""Ids of pandas' Styler, for its style sheet; others could stand in for the page's own ids."""
PROPERTIES = frozenset(
    """
    align-items background-color border border-bottom border-bottom-color border-collapse
    border-color border-left border-radius border-right border-top border-width color display flex
    flex-wrap float font-family font-size font-style font-variant font-variant-numeric font-weight
    gap height justify-content letter-spacing line-height list-style margin margin-bottom
    margin-left margin-right margin-top max-height max-width min-width opacity overflow overflow-x
    padding padding-bottom padding-left padding-right padding-top text-align text-decoration
    text-indent vertical-align white-space width
    """.split()
)
"""CSS properties that cannot move an element over another part of the page."""
EMBEDDED_IMAGE = re.compile(r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=\s]*")
HIDDEN_CONTENT = re.compile(
    r"<(script|style|template|noscript|title)\b[^>]*>.*?(</\1\s*>|\Z)", re.I | re.S
)
STYLE_SHEET = re.compile(r"<style\b[^>]*>(.*?)</style\s*>", re.I | re.S)
DROPPED_IMAGE = re.compile(r"<img(?![^>]* src=)(?:[^>]* alt=\"([^\"]*)\")?[^>]*>")


def sanitise(html: str) -> str:
    """Return HTML with allowed elements, attributes and styles only.

    Styler's own style sheets stay, each rule limited to its table and to PROPERTIES.
    """
    import bleach
    from bleach.css_sanitizer import CSSSanitizer

    css = CSSSanitizer(allowed_css_properties=PROPERTIES)
    rules = [_table_rules(sheet, css) for sheet in STYLE_SHEET.findall(html)]
    body = bleach.clean(
        HIDDEN_CONTENT.sub("", html),
        tags=TAGS,
        attributes=_is_allowed,
        protocols={"http", "https", "mailto", "data"},
        css_sanitizer=css,
        strip=True,
    )
    body = DROPPED_IMAGE.sub(r"<span class='note'>[picture left out] \1</span>", body)
    sheet = "\n".join(filter(None, rules))
    return f"<style>{sheet}</style>\n{body}" if sheet else body


def _is_allowed(tag: str, name: str, value: str) -> bool:
    if name == "id":
        return STYLE_ID.fullmatch(value) is not None
    if name == "src":
        return tag == "img" and EMBEDDED_IMAGE.fullmatch(value) is not None
    if name == "href":
        return tag == "a" and not value.strip().lower().startswith("data:")
    return name in ATTRIBUTES


def _table_rules(sheet: str, css: object) -> str:
    """Return the rules of a style sheet whose selectors all name one table of Styler's."""
    import tinycss2

    kept = []
    for rule in tinycss2.parse_stylesheet(sheet, skip_comments=True, skip_whitespace=True):
        if rule.type != "qualified-rule":
            continue
        selector = tinycss2.serialize(rule.prelude).strip()
        parts = [part.strip() for part in selector.split(",")]
        if all(re.fullmatch(r"#T_\w+[\w\s:.>()-]*", part) for part in parts):
            declarations = css.sanitize_css(tinycss2.serialize(rule.content))
            kept.append(f"{selector} {{{declarations}}}")
    return "\n".join(kept)
