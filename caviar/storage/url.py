"""URLs of databases: what is refused before a driver sees it, and what of one may be shown."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sqlalchemy import exc, make_url
from sqlalchemy.engine import URL

from caviar.errors import StorageError

_EXAMPLES = "sqlite:///caviar.db or postgresql://user:password@host/database"
_SQLITE = ("sqlite", "sqlite+pysqlite")
_POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")

#: Options that messages show. No other: a password may stand in any, were it by a slip of the pen.
_SHOWN_OPTIONS = ("dbname", "host", "hostaddr", "mode", "port", "service", "sslmode", "user")


def parse_url(url: str) -> URL:
    """Return the URL, with its driver.

    Raises:
        StorageError: it is malformed, names a database that caviar does not know, or has an option that it does not
            take. The message shows no password.
    """
    if not isinstance(url, str):
        raise StorageError(f"the storage must be a URL such as {_EXAMPLES}, found {type(url).__name__}")
    try:
        parsed = make_url(url)
        url.encode()
    except UnicodeError:
        raise StorageError("the URL of the storage holds characters that are no Unicode; write them as %XX") from None
    except ValueError:
        raise _malformed(url, "; its port must be a number, and @ : / in a password are written %40 %3A %2F") from None
    except exc.ArgumentError:
        raise _malformed(url, "") from None
    if "\x00" in f"{parsed.username}{parsed.password}{parsed.host}{parsed.database}" + "".join(_words(parsed)):
        raise StorageError("the URL of the storage holds a NUL character; remove it")
    name = parsed.drivername.partition("+")[0]
    if name == "sqlite":
        return _checked_sqlite(parsed)
    if name in _POSTGRES:
        return _checked_postgres(parsed, url)
    raise StorageError(f"unknown database {name!r} (known: sqlite, postgresql); write {_EXAMPLES}")


def shown(url: URL) -> str:
    """Return a URL as messages show it: without its password and its driver."""
    options = {name: value for name, value in url.query.items() if name in _SHOWN_OPTIONS}
    plain = url.set(drivername=url.get_backend_name(), query=options)
    return plain.render_as_string(hide_password=True)


def is_read_only(url: URL) -> bool:
    """Return whether the URL itself says that nothing is to be written."""
    return url.get_backend_name() == "sqlite" and url.query.get("mode") == "ro"


def _malformed(url: str, advice: str) -> StorageError:
    return StorageError(f"the storage must be a URL such as {_EXAMPLES}, found {_masked(url)}{advice}")


def _masked(text: str) -> str:
    """Return what may be shown of a text that is no URL: where its password is, nobody knows."""
    scheme, colon, rest = text.partition(":")
    if not re.search("[@?=]", text) and (not colon or scheme == "sqlite"):
        return repr(text)
    if colon and scheme in (*_SQLITE, *_POSTGRES):
        return f"'{scheme}:{rest[:2] if rest.startswith('//') else ''}...'"
    return "something else"


def _checked_sqlite(url: URL) -> URL:
    if url.drivername not in _SQLITE:
        raise StorageError(f"the driver of an SQLite file must be pysqlite, found {url.drivername!r}: write sqlite:///")
    if url.host or url.username or url.port:
        raise StorageError(
            "the URL names a host where SQLite expects a path: write sqlite:///relative/path or sqlite:////absolute/path"
        )
    for name, value in url.query.items():
        if (name, value) != ("mode", "ro"):
            found = repr(name) if name != "mode" else f"mode={value!r}"
            raise StorageError(f"unknown option {found} in the URL of an SQLite file (known: mode=ro); remove it")
    return url.set(drivername="sqlite+pysqlite")


def _checked_postgres(url: URL, text: str) -> URL:
    if url.drivername not in _POSTGRES:
        raise StorageError(f"the driver must be psycopg, found {url.drivername!r}: write postgresql://...")
    if _splits_a_password(url, text):
        # Its end would be taken for the host, and shown.
        raise StorageError("the URL of the storage has more than one @; write %40 for one that is part of a password")
    _check_options(url)
    for host in _hosts(url):
        try:
            host.encode("idna")  # as the driver does, which dies of it
        except UnicodeError:
            raise StorageError(
                f"the host of {shown(url)!r} cannot be one: each part between dots has 1 to 63 characters"
            ) from None
    return url.set(drivername="postgresql+psycopg")


def _splits_a_password(url: URL, text: str) -> bool:
    after = text.partition("://")[2]
    if url.password is not None:
        return "@" in after.partition(":")[2].partition("@")[2]
    if url.username is not None:
        return "@" in (url.database or "")
    return "@" in after.partition("?")[0]


def _check_options(url: URL) -> None:
    """Refuse an option that libpq does not know: the driver would take it for an argument of its own."""
    from psycopg.pq import Conninfo

    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    for name, value in url.query.items():
        if name not in known:
            raise StorageError(
                f"unknown option {name!r} in the URL of the storage; remove it, or give one of libpq, such as sslmode"
            )
        if not isinstance(value, str) and name not in ("host", "port"):
            raise StorageError(f"the option {name!r} is given twice in the URL of the storage; remove one")
        if name == "client_encoding" and str(value).lower() not in ("utf8", "utf-8", "unicode"):
            raise StorageError(f"client_encoding must be utf8, found {value!r}; remove it from the URL")
        if name == "port" and not all(_is_port(port) for port in _listed(value)):
            raise StorageError(f"port must be a number from 1 to 65535, found {value!r} in the URL of the storage")


def _is_port(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and 0 < int(text) < 65536)


def _hosts(url: URL) -> Iterator[str]:
    for host in (url.host or "", *_listed(url.query.get("host", ()))):
        if host and not host.startswith(("/", "@")):  # a folder with a socket
            yield host.partition(":")[0]


def _words(url: URL) -> Iterator[str]:
    for value in url.query.values():
        yield from (value,) if isinstance(value, str) else value


def _listed(value: str | tuple[str, ...]) -> list[str]:
    return [part for one in ((value,) if isinstance(value, str) else value) for part in one.split(",")]
