"""One request to an S3 server, signed by AWS Signature Version 4: endpoint region key secret method path [body]."""
import datetime, hashlib, hmac, sys, urllib.error, urllib.parse, urllib.request

endpoint, region, key, secret, method, what = sys.argv[1:7]
body = sys.argv[7].encode() if len(sys.argv) > 7 else b""
path, _, query = what.partition("?")
path = urllib.parse.quote("/" + path, safe="/-_.~")
pairs = sorted(urllib.parse.parse_qsl(query, keep_blank_values=True))
query = "&".join(f"{urllib.parse.quote(n, safe='-_.~')}={urllib.parse.quote(v, safe='-_.~')}" for n, v in pairs)
host = urllib.parse.urlsplit(endpoint).netloc
now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
digest = hashlib.sha256(body).hexdigest()
headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": now}
signed = ";".join(sorted(headers))
canonical = "\n".join([method, path, query, *(f"{n}:{headers[n]}" for n in sorted(headers)), "", signed, digest])
scope = f"{now[:8]}/{region}/s3/aws4_request"
text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
sign = lambda k, t: hmac.new(k, t.encode(), hashlib.sha256).digest()
derived = ("AWS4" + secret).encode()
for step in scope.split("/"):
    derived = sign(derived, step)
signature = sign(derived, text).hex()
del headers["host"]
headers["authorization"] = (
    f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={signed}, Signature={signature}")
url = f"{endpoint}{path}" + (f"?{query}" if query else "")
request = urllib.request.Request(url, data=body or None, headers=headers, method=method)
try:
    with urllib.request.urlopen(request, timeout=15) as reply:
        print(reply.headers if method == "HEAD" else reply.read().decode(errors="replace"))
except urllib.error.HTTPError as error:
    sys.exit(f"{method} {what}: {error.code} {error.read().decode(errors='replace')}")
except OSError as error:
    sys.exit(f"{method} {what}: {error}")
