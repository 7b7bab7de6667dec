"""What stands around the tabs."""

from __future__ import annotations

import pytest

from fkp.demo import page
from fkp.demo.settings import SettingsError, from_environment


def test_the_page_leads_to_the_edition_in_the_browser_where_one_is_served():
    address = from_environment({"FKP_BROWSER_EDITION": "https://owner-name.static.hf.space/?a&b"}).browser_edition
    assert 'href="https://owner-name.static.hf.space/?a&amp;b"' in page.browser_edition(address)
    assert page.browser_edition(from_environment({}).browser_edition) == ""


@pytest.mark.parametrize("address", ["faces.example.org", "javascript:alert(1)", 'https://x/"><script>'])
def test_address_that_is_none_is_told(address):
    with pytest.raises(SettingsError, match="FKP_BROWSER_EDITION is .* where an address as https"):
        from_environment({"FKP_BROWSER_EDITION": address})
