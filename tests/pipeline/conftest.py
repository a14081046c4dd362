from tests.conversions import converted_once, export

__all__ = ["converted_once", "export"]
