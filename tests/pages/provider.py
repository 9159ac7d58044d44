"""A sign-in provider on loopback that lets anybody be anybody: OpenID Connect, as small as it may be."""

import json
import threading
import time
import urllib.parse
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT = "lab"


class Provider(BaseHTTPRequestHandler):
    """Its page asks for an address; the code that it hands out is that address with the nonce."""

    def do_GET(self):
        address = urllib.parse.urlsplit(self.path)
        asked = dict(urllib.parse.parse_qsl(address.query))
        root = self.server.root
        if address.path.endswith("openid-configuration"):
            ends = {"authorization": "authorize", "token": "token", "end_session": "leave"}
            self._json(
                {
                    "issuer": root,
                    "jwks_uri": f"{root}/keys",
                    "id_token_signing_alg_values_supported": ["RS256"],
                    **{f"{name}_endpoint": f"{root}/{end}" for name, end in ends.items()},
                }
            )
        elif address.path == "/keys":
            self._json({"keys": [self.server.key.as_dict(private=False)]})
        elif address.path == "/authorize":
            fields = "".join(
                f'<input type="hidden" name="{name}" value="{asked[name]}">'
                for name in ("redirect_uri", "state", "nonce")
            )
            page = f'<form action="/chosen">{fields}<input name="email"><button>Go on</button></form>'
            self._send(200, page.encode(), "text/html")
        elif address.path == "/chosen":
            code = {"code": f"{asked['nonce']} {asked['email']}", "state": asked["state"]}
            self._go(f"{asked['redirect_uri']}?{urllib.parse.urlencode(code)}")
        elif address.path == "/leave":
            self._go(asked["post_logout_redirect_uri"])
        else:  # a browser asks for an icon
            self._send(204, b"", "text/plain")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        nonce, email = dict(urllib.parse.parse_qsl(body))["code"].split()
        now = int(time.time())
        claims = {"iss": self.server.root, "aud": CLIENT, "sub": email, "iat": now, "exp": now + 600}
        claims |= {"nonce": nonce, "email": email, "email_verified": True}
        header = {"alg": "RS256", "kid": self.server.key.kid}
        token = jwt.encode(header, claims, self.server.key)
        self._json({"access_token": "a", "token_type": "Bearer", "expires_in": 600, "id_token": token})

    def _json(self, content):
        self._send(200, json.dumps(content).encode(), "application/json")

    def _go(self, address):
        self._send(302, b"", "text/plain", Location=address)

    def _send(self, status, content, kind, **headers):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Nothing: the test's output is not its place."""


@contextmanager
def providing():
    """The address of a provider that runs as long as the context."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    server.daemon_threads = True
    server.key = RSAKey.generate_key(2048, parameters={"use": "sig", "alg": "RS256"}, auto_kid=True)
    server.root = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.root
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
