"""Texts that are harmless only where a page escapes them, and a look at whether it did."""

from html.parser import HTMLParser

EVIL = (
    '<script>alert("1")</script>&<img src=x onerror=alert(2)><svg onload=alert(3)>'
    '"\' onmouseover=alert(4) x=\'<a href="javascript:alert(5)">[x](javascript:alert(6))</a></td></pre><!--'
)


class Tags(HTMLParser):
    """What a browser would take for tags and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def assert_harmless(html: str, scripts: int = 0) -> None:
    """Of a page that shows EVIL: nothing of it is a tag or an attribute, and whole pages ask nobody for anything."""
    tags = Tags(html).found
    names = [name for name, _ in tags]
    assert "&lt;script&gt;" in html, "it does not show the text"
    assert names.count("script") == scripts and not {"img", "iframe", "object", "embed", "base", "form"} & {*names}
    for _, attributes in tags:
        assert not [name for name in attributes if name.startswith("on")], attributes
        assert not [value for value in attributes.values() if (value or "").strip().lower().startswith("javascript:")]
    if "html" in names:
        policies = [values["content"] for name, values in tags if values.get("http-equiv") == "Content-Security-Policy"]
        assert [policy.startswith("default-src 'none';") for policy in policies] == [True]
        assert scripts or "script-src" not in policies[0]
