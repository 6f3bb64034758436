// A certificate authority for fakes, and one certificate of it: made by openssl, in a directory of its own.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Makes both. `names` are what the certificate is for: DNS names, and addresses as `IP:127.0.0.1`. */
export function makeAuthority(names) {
  const directory = mkdtempSync(join(tmpdir(), "bowline-ca-"));
  const file = (name) => join(directory, name);
  const openssl = (...args) => execFileSync("openssl", args, { cwd: directory, stdio: ["ignore", "ignore", "pipe"] });
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  openssl("req", "-x509", ...key, "-keyout", "ca-key.pem", "-out", "ca.pem", "-days", "2", "-subj", "/CN=Fake services",
    "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign");
  openssl("req", ...key, "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=fake");
  const alternatives = names.map((name) => (name.startsWith("IP:") ? name : `DNS:${name}`)).join(",");
  writeFileSync(file("leaf.cnf"), `basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
subjectAltName=${alternatives}
`);
  openssl("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2",
    "-extfile", "leaf.cnf", "-out", "certificate.pem");
  return {
    /** The authority, for those who are to believe it. */
    caFile: file("ca.pem"),
    key: readFileSync(file("key.pem")),
    cert: readFileSync(file("certificate.pem")),
    clear: () => rmSync(directory, { recursive: true, force: true }),
  };
}
