"""An HTML page as its parser sees it."""

import base64
import shutil
from html.parser import HTMLParser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Tags in their order, what is not closed, and what would be loaded."""

    def __init__(self, html):
        super().__init__()
        self.found, self.open, self.mistakes, self.text = [], [], [], ""
        self.feed(html)
        self.close()
        self.mistakes += [f"{tag} is not closed" for tag in self.open]

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.mistakes.append(f"</{tag}> closes nothing")

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    @property
    def tags(self):
        return [tag for tag, _ in self.found]

    def all(self, wanted):
        return [attributes for tag, attributes in self.found if tag == wanted]

    @property
    def links(self):
        return [link["href"] for link in self.all("a")]

    @property
    def loaded(self):
        """Everything but citations that is not inside the page."""
        sources = [a[key] for tag, a in self.found for key in ("src", "href", "srcset", "data")
                   if key in a and tag != "a"]  # fmt: skip
        return [source for source in sources if not source.startswith("data:")]

    @staticmethod
    def image(attributes):
        """Kind and content of an image that is inside the page."""
        head, _, data = attributes["src"].partition(",")
        assert head.startswith("data:")
        assert head.endswith(";base64")
        return head.removeprefix("data:").removesuffix(";base64"), base64.b64decode(data)
