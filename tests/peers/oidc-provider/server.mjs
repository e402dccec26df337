// An authorization server that is not of this project: the certified oidc-provider, set up so that every grant and
// every client authentication that it shares with the broker's `oauth2` kind can be used. It runs in the process of the
// check, which so sees what each request proved, and makes the refresh tokens for which it otherwise takes a person.

import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { once } from 'node:events';
import Provider, { errors } from 'oidc-provider';

// All that a client secret may hold beside letters and digits, and what looks encoded already.
const PUNCTUATION = ' !"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~%41%%20';

const random = () => randomBytes(24).toString('base64url');
const newSecret = () => `${random()}${PUNCTUATION}${random()}`;
const digest = (text) => createHash('sha256').update(text).digest('base64url').slice(0, 12);

/** The keys with which a client may sign: algorithm, and how a key for it is made. */
const ALGORITHMS = {
  RS256: ['rsa', { modulusLength: 2048 }],
  RS384: ['rsa', { modulusLength: 2048 }],
  RS512: ['rsa', { modulusLength: 2048 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  PS384: ['rsa', { modulusLength: 2048 }],
  PS512: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  ES384: ['ec', { namedCurve: 'P-384' }],
  EdDSA: ['ed25519', {}],
};

/** The APIs that tokens are for: how long those live, in seconds, and how they are signed. */
export const RESOURCES = {
  'https://api.example/v1?tenant=a&b': { life: 3600, alg: 'RS256' },
  'urn:example:quick': { life: 8, alg: 'ES256' },
};

/** A key pair of a client or of the server. */
export function newKey(alg) {
  const { privateKey, publicKey } = generateKeyPairSync(...ALGORITHMS[alg]);
  const named = { kid: `key ${alg}`, alg, use: 'sig' };
  return {
    pem: privateKey.export({ format: 'pem', type: 'pkcs8' }),
    private: { ...privateKey.export({ format: 'jwk' }), ...named },
    public: { ...publicKey.export({ format: 'jwk' }), ...named },
  };
}

function resourceServer(_ctx, resource) {
  const known = RESOURCES[resource];
  if (!known) throw new errors.InvalidTarget();
  return {
    scope: 'read write',
    audience: resource,
    accessTokenTTL: known.life,
    accessTokenFormat: 'jwt',
    jwt: { sign: { alg: known.alg } },
  };
}

/** Of a token, in seconds; opaque tokens are for no resource. */
const life = (_ctx, token) => token.resourceServer?.accessTokenTTL ?? 600;

function configuration(clients) {
  return {
    clients,
    jwks: { keys: [newKey('RS256').private, newKey('ES256').private] },
    cookies: { keys: [random()] },
    scopes: ['openid', 'offline_access', 'read', 'write', 'admin'],
    enabledJWA: { clientAuthSigningAlgValues: Object.keys(ALGORITHMS) },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      richAuthorizationRequests: {
        enabled: true,
        types: { transfer: { validate() {} } },
        authorizationDetailsForAccessToken: (ctx) => JSON.parse(ctx.oidc.params.authorization_details),
      },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        getResourceServerInfo: resourceServer,
        useGrantedResource: () => true,
      },
    },
    findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    interactions: { url: () => '/none' },
    rotateRefreshToken: true,
    ttl: { AccessToken: life, ClientCredentials: life, Grant: 3600, IdToken: 600, RefreshToken: 3600 },
  };
}

const consented = {
  grant_types: ['authorization_code', 'refresh_token'],
  redirect_uris: ['https://client.example/back'],
  scope: 'openid offline_access read write',
};
const machine = { grant_types: ['client_credentials'], redirect_uris: [], response_types: [], scope: 'read write' };

/** Serves on a port of loopback that the system chooses. */
export async function serve() {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const issuer = `http://127.0.0.1:${server.address().port}`;

  const keys = Object.fromEntries(Object.keys(ALGORITHMS).map((alg) => [alg, newKey(alg)]));
  const clients = {
    basic: {
      ...machine,
      client_id: 'a:client of/100%+&more=',
      client_secret: newSecret(),
      authorization_details_types: ['transfer'],
    },
    post: {
      ...machine,
      client_id: 'post',
      client_secret: newSecret(),
      token_endpoint_auth_method: 'client_secret_post',
    },
    keys: {
      ...machine,
      client_id: 'https://client.example/?a=b',
      token_endpoint_auth_method: 'private_key_jwt',
      jwks: { keys: Object.values(keys).map((key) => key.public) },
    },
    person: { ...consented, client_id: 'for+a+person', client_secret: newSecret() },
    app: { ...consented, client_id: 'app', token_endpoint_auth_method: 'none' },
  };
  const provider = new Provider(issuer, configuration(Object.values(clients)));
  const requests = [];
  const received = [];
  // What the answer itself is silent about, so that it says nothing to who guesses.
  provider.on('grant.error', (ctx, error) => { ctx.state.detail = error.error_detail; });
  provider.use(async (ctx, next) => {
    await next();
    if (ctx.oidc?.route !== 'token') return;
    requests.push(record(ctx));
    const { refresh_token: refreshToken, client_assertion: assertion } = ctx.oidc.params;
    received.push(...[refreshToken, assertion].filter(Boolean));
  });
  server.on('request', provider.callback());
  return {
    issuer,
    clients,
    requests,
    // Refresh tokens and assertions, to look for where they must not be.
    received,
    privateKeys: Object.fromEntries(Object.entries(keys).map(([alg, key]) => [alg, key.pem])),
    refreshToken: (client, resource) => newRefreshToken(provider, client.client_id, resource),
    knows: async (token) => (await provider.ClientCredentials.find(token))?.isValid,
    reuse: (token) => refresh(issuer, clients.person, token, requests),
    close: () => server.close().closeAllConnections(),
  };
}

/** What a request proved, and what came of it. No secret: this is printed when a check fails. */
function record(ctx) {
  const { params = {}, client, entities } = ctx.oidc;
  const { error, error_description: words } = ctx.body ?? {};
  const refused = ctx.status === 200 ? {} : { error, detail: ctx.state.detail ?? words };
  return {
    client: client?.clientId,
    grant: params.grant_type,
    proof: proof(ctx.headers.authorization, params),
    resource: params.resource,
    scope: params.scope,
    status: ctx.status,
    ...refused,
    ...(params.refresh_token && { used: digest(params.refresh_token), rotation: entities.RefreshToken?.rotations }),
  };
}

function proof(authorization, params) {
  if (authorization !== undefined) return authorization.split(' ')[0].toLowerCase();
  if (params.client_secret !== undefined) return 'body';
  if (params.client_assertion === undefined) return 'none';
  return JSON.parse(Buffer.from(params.client_assertion.split('.')[0], 'base64url')).alg;
}

/** What a person who signs in and consents would have left with the client. */
async function newRefreshToken(provider, clientId, resource) {
  const scope = 'offline_access read write';
  const accountId = 'a-person';
  const grant = new provider.Grant({ accountId, clientId });
  grant.addOIDCScope('offline_access');
  grant.addResourceScope(resource, 'read write');
  const grantId = await grant.save();
  const client = await provider.Client.find(clientId);
  const token = new provider.RefreshToken({ accountId, client, grantId, scope, resource, gty: 'authorization_code' });
  return token.save();
}

/** A refresh that is not the broker's: what was recorded of it. */
async function refresh(issuer, client, token, requests) {
  const form = (text) => new URLSearchParams({ '': text }).toString().slice(1);
  const basic = Buffer.from(`${form(client.client_id)}:${form(client.client_secret)}`).toString('base64');
  const answer = await fetch(`${issuer}/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${basic}` },
    body: new URLSearchParams({ grant_type: 'refresh_token', refresh_token: token }),
  });
  await answer.arrayBuffer();
  return requests.findLast((request) => request.used === digest(token));
}
