from tests.conversions import converted_once

__all__ = ["converted_once"]
