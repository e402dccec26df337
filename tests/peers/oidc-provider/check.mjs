// What the broker's oauth2 kind brings from an authorization server that is not of this project: run by run.sh.

import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { createRemoteJWKSet, jwtVerify } from 'jose';
import { Broker } from './broker.mjs';
import { RESOURCES, newKey, serve } from './server.mjs';

// In milliseconds: it takes fifteen seconds.
const LIMIT = 120_000;
const [API, QUICK] = Object.keys(RESOURCES);
const RENEWALS = 6;
// A parameter that the broker knows nothing of (RFC 9396).
const DETAILS = JSON.stringify([{ type: 'transfer', text: 'ü & ?=+%41' }]);

// Whatever ends this ends the broker too.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));
setTimeout(() => {
  console.error(`not over after ${LIMIT / 1000} s`);
  process.exit(1);
}, LIMIT).unref();

const [program] = process.argv.slice(2);
const peer = await serve();
const broker = new Broker(program);
const { basic, post, keys, person, app } = peer.clients;
// Looked for in the log at the end. What a secret begins with looks the same when it is encoded.
const secrets = [basic, post, person].map((client) => client.client_secret.slice(0, 32));
const handedOut = [];

const withSecret = (client, secret = client.client_secret) => ({
  parameters: { client_id: client.client_id },
  credential: { client_secret: broker.secret(secret) },
});
const withKey = (alg, pem = peer.privateKeys[alg], keyId = `key ${alg}`) => ({
  flow: 'private-key-jwt',
  parameters: { client_id: keys.client_id, algorithm: alg },
  credential: { private_key: broker.secret(pem), key_id: broker.secret(keyId) },
});
const asking = (workspace, parameters, extra = {}) => ({
  ...workspace, ...extra, parameters: { ...workspace.parameters, ...parameters },
});

const algorithms = Object.keys(peer.privateKeys);
const firstRefreshToken = await peer.refreshToken(person, QUICK);
const inBasic = { flow: 'client-credentials', ...withSecret(basic) };
const inBody = { flow: 'client-credentials-body', ...withSecret(post) };
const forPerson = {
  flow: 'refresh-token',
  parameters: { client_id: person.client_id },
  credential: { client_secret: broker.secret(person.client_secret), refresh_token: broker.secret(firstRefreshToken) },
};

const forApp = {
  flow: 'refresh-token',
  parameters: { client_id: app.client_id, scope: 'read' },
  credential: { refresh_token: broker.secret(await peer.refreshToken(app, API)) },
};
const exchanging = {
  flow: 'token-exchange',
  parameters: { client_id: basic.client_id },
  credential: { client_secret: broker.secret(basic.client_secret), subject_token: broker.secret('a-token') },
};

/** What is asked for; which client the server must have recognised, and how. */
const granted = {
  'basic/opaque': [inBasic, { client: basic, proof: 'basic' }],
  'basic/scope': [asking(inBasic, { scope: 'read' }), { client: basic, proof: 'basic', scope: 'read' }],
  'basic/resource': [
    asking(inBasic, { scope: 'write read', resource: API }),
    { client: basic, proof: 'basic', resource: API, scope: 'write read' },
  ],
  'basic/extra': [
    asking(inBasic, { scope: 'read', resource: API }, { extra_parameters: { authorization_details: DETAILS } }),
    { client: basic, proof: 'basic', resource: API, scope: 'read', details: DETAILS },
  ],
  'body/opaque': [inBody, { client: post, proof: 'body' }],
  'body/resource': [
    asking(inBody, { scope: 'read', resource: API }),
    { client: post, proof: 'body', resource: API, scope: 'read' },
  ],
  ...Object.fromEntries(algorithms.map((alg) => [
    `key/${alg.toLowerCase()}`,
    [
      asking(withKey(alg), { scope: 'read', resource: API }),
      { client: keys, proof: alg, resource: API, scope: 'read' },
    ],
  ])),
  // The other form that RSA keys come in.
  'key/pkcs1': [
    withKey('RS256', createPrivateKey(peer.privateKeys.RS256).export({ format: 'pem', type: 'pkcs1' })),
    { client: keys, proof: 'RS256' },
  ],
  // As FAPI 2.0 wants it: the assertion is for the issuer, not for the endpoint.
  'key/for-issuer': [
    asking(withKey('PS256'), { scope: 'read', resource: API, assertion_audience: peer.issuer }),
    { client: keys, proof: 'PS256', resource: API, scope: 'read' },
  ],
  'refresh/no-secret': [
    forApp,
    { client: app, grant: 'refresh_token', proof: 'none', scope: 'read', of: API, subject: 'a-person' },
  ],
};

const NO_KEY = 'no applicable key found in the JSON Web Key Set';
/** What must be refused, and the server's own reason. */
const refused = {
  'wrong/basic': [{ ...inBasic, ...withSecret(basic, basic.client_secret.slice(1)) }, 'invalid secret provided'],
  'wrong/body': [{ ...inBody, ...withSecret(post, `${post.client_secret}x`) }, 'invalid secret provided'],
  'wrong/key': [withKey('ES256', newKey('ES256').pem), 'signature verification failed'],
  'wrong/key-id': [withKey('ES256', undefined, 'key ES384'), NO_KEY],
  'wrong/client': [asking(inBasic, { client_id: 'nobody' }), 'client not found'],
  'wrong/audience': [
    asking(withKey('ES256'), { assertion_audience: 'https://another.example/token' }),
    'audience (aud) must equal the endpoint url, issuer identifier or token endpoint url',
  ],
  'wrong/algorithm': [asking(withKey('RS256'), { algorithm: 'RS384' }), NO_KEY],
  'wrong/scope': [asking(inBasic, { scope: 'admin', resource: API }), 'requested scope is not allowed'],
  'wrong/resource': [asking(inBasic, { resource: 'urn:example:unknown' }), 'resource indicator is missing, or unknown'],
  'wrong/refresh-token': [
    { ...forPerson, credential: { ...forPerson.credential, refresh_token: broker.secret('no-such-token') } },
    'refresh token not found',
  ],
  // The server does not have it, but has nothing to say against the client.
  'wrong/grant': [exchanging, 'unsupported grant_type requested'],
  // The same secret as it is: that the others pass shows that the broker encodes it.
  'wrong/not-encoded': [{ upstream: 'not-encoded', ...withSecret(post) }, 'URI malformed'],
};

const upstreams = {
  peer: {
    kind: 'oauth2',
    url: `${peer.issuer}/token`,
    budget: { logins: 1_000, per: '1m' },
    shortest_lifetime: '2s',
    renew_at: 0.1,
  },
  'not-encoded': {
    kind: 'http',
    url: `${peer.issuer}/token`,
    flows: {
      login: {
        secrets: ['client_secret'],
        parameters: ['client_id'],
        login: {
          path: '',
          basic: { user: '{client_id}', password: '{client_secret}', form_encoded: false },
          form: { grant_type: 'client_credentials' },
          answer: { token: 'access_token', expiry: [{ relative: 'expires_in', unit: 's' }] },
        },
      },
    },
  },
};

function workspaces() {
  const all = { ...granted, ...refused, person: [forPerson] };
  const named = Object.entries(all).map(([name, [workspace]]) => [name, { upstream: 'peer', ...workspace }]);
  return Object.fromEntries(named);
}

/** Names what fails. */
async function step(name, check) {
  const begun = performance.now();
  try {
    const said = await check();
    console.log(`${name.padEnd(20)} ${Math.round(performance.now() - begun)} ms${said ? `: ${said}` : ''}`);
  } catch (error) {
    console.error(`${name} failed; the broker said:\n${broker.log}`);
    throw error;
  }
}

/** The requests that this made, and what it came to. */
async function during(action) {
  const before = peer.requests.length;
  const result = await action();
  return [result, peer.requests.slice(before)];
}

const jwks = createRemoteJWKSet(new URL(`${peer.issuer}/jwks`));

/** A JWT is what the server's published keys say it is. */
async function verify(token, { client, scope, details, resource, of = resource, subject = client.client_id }) {
  const { issuer } = peer;
  const { payload } = await jwtVerify(token.value, jwks, { issuer, audience: of, subject, typ: 'at+jwt' });
  assert.equal(payload.client_id, client.client_id);
  assert.deepEqual(payload.scope.split(' ').toSorted(), scope.split(' ').toSorted());
  assert.deepEqual(payload.authorization_details, details && JSON.parse(details));
  const life = payload.exp - payload.iat;
  assert.equal(life, RESOURCES[of].life);
  assert.ok(token.valid_for_seconds > 0 && token.valid_for_seconds <= life, `${token.valid_for_seconds} of ${life} s`);
  assert.ok(Date.parse(token.expires_at) <= payload.exp * 1000, 'no later than the server says');
}

async function isGranted(name, expected) {
  const [token, requests] = await during(() => broker.get(name));
  assert.equal(token.refused, undefined, JSON.stringify(requests));
  handedOut.push(token.value);
  assert.deepEqual([token.header_name, token.token_type], ['authorization', 'Bearer']);
  const { client, grant = 'client_credentials', proof, resource, scope } = expected;
  const asked = requests.map((seen) => [seen.client, seen.grant, seen.proof, seen.resource, seen.scope]);
  assert.deepEqual(asked, [[client.client_id, grant, proof, resource, scope]]);
  if (expected.resource ?? expected.of) await verify(token, expected);
  else assert.ok(await peer.knows(token.value), 'an opaque token is the one that the server keeps');
}

async function isRefused(name, reason) {
  const [answer, requests] = await during(() => broker.get(name));
  assert.match(answer.refused ?? 'a token', /CREDENTIAL_REJECTED/, JSON.stringify(requests));
  assert.equal(requests.length, 1, 'tried once');
  assert.equal(requests[0].detail, reason);
  const [again, more] = await during(() => broker.get(name));
  assert.match(again.refused, /CREDENTIAL_REJECTED/);
  assert.deepEqual(more, [], 'not tried again');
  return `${requests[0].status} ${requests[0].error}: ${requests[0].detail}`;
}

/** Each renewal spends the refresh token that the one before it brought. */
async function rotates() {
  const states = broker.watch('person');
  const first = peer.requests.length;
  for (let seen = 0; seen <= RENEWALS;) {
    const { value: state } = await states.next();
    if (state.state !== 'token') {
      assert.equal(state.reason, 'TOKEN_PENDING');
      continue;
    }
    await verify(state, { client: person, resource: QUICK, scope: 'read write', subject: 'a-person' });
    handedOut.push(state.value);
    seen += 1;
  }
  const spent = peer.requests.slice(first);
  for (const [before, { client, grant, proof, status, rotation }] of spent.entries()) {
    const expected = [person.client_id, 'refresh_token', 'basic', 200, before + 1];
    assert.deepEqual([client, grant, proof, status, rotation], expected);
  }
  assert.ok(spent.length > RENEWALS);
  assert.equal(new Set(spent.map((request) => request.used)).size, spent.length, 'no refresh token is used twice');
  return states;
}

/** The server watches: the first refresh token once more ends the family, and the broker says that it is over. */
async function isToldOfReuse(states) {
  const reused = await peer.reuse(firstRefreshToken);
  assert.equal(reused.detail, 'refresh token already used');
  let state;
  do ({ value: state } = await states.next()); while (state.state === 'token');
  assert.equal(state.reason, 'CREDENTIAL_REJECTED');
  await states.return();
  const after = peer.requests.slice(peer.requests.indexOf(reused) + 1).map((request) => request.error);
  assert.deepEqual(after, ['invalid_grant', 'invalid_grant'], 'the newer one, then the configured one, and no more');
  const spent = peer.requests.filter((request) => request.client === person.client_id && request.status === 200);
  return `${spent.length} refresh tokens, each used once`;
}

function nothingLeaked() {
  const { log } = broker;
  assert.ok(log.includes('asks the upstream'), 'the log is there');
  const pem = Object.values(peer.privateKeys).map((key) => key.split('\n')[1]);
  assert.ok(peer.received.length > RENEWALS);
  const found = [...secrets, ...handedOut, ...pem, ...peer.received].filter((text) => log.includes(text));
  assert.equal(found.length, 0, 'no secret and no token in the log');
}

await broker.start(upstreams, workspaces());
for (const [name, [, expected]] of Object.entries(granted)) await step(name, () => isGranted(name, expected));
for (const [name, [, reason]] of Object.entries(refused)) await step(name, () => isRefused(name, reason));
await step('rotation', async () => isToldOfReuse(await rotates()));
await step('log', nothingLeaked);
broker.stop();
peer.close();
