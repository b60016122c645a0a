// A real identity provider for the tests.  Usage: node server.mjs PORT KEYS_JSON
// Prints its URL when it accepts connections.  Resources name the format of the access token:
// urn:RS256, urn:ES256, urn:EdDSA and urn:opaque.
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const [port, keys] = [Number(process.argv[2]), JSON.parse(process.argv[3])];
const accounts = {
  ada: { email: 'ada@example.com', email_verified: true, groups: ['engineering'] },
  bob: { email: 'bob@example.com', email_verified: false },
};

function resourceServer(ctx, indicator) {
  const format = indicator.replace('urn:', '');
  const shared = { scope: 'llm_proxy', audience: 'llm-proxy', accessTokenTTL: 3600 };
  return format === 'opaque'
    ? { ...shared, accessTokenFormat: 'opaque' }
    : { ...shared, accessTokenFormat: 'jwt', jwt: { sign: { alg: format } } };
}

const server = createServer();
server.listen(port, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: 'cli',
        application_type: 'native',
        token_endpoint_auth_method: 'none',
        redirect_uris: [
          'http://127.0.0.1/callback',
          'http://localhost/callback',
          'http://127.0.0.1/dashboard/sign-in/callback',
          'http://localhost/dashboard/sign-in/callback',
        ],
        grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
      },
      { client_id: 'proxy', client_secret: 'introspection-secret', redirect_uris: [], response_types: [], grant_types: [] },
    ],
    jwks: { keys },
    cookies: { keys: ['a cookie key of the tests'] },
    scopes: ['openid', 'offline_access', 'llm_proxy'],
    claims: { openid: ['sub', 'email', 'email_verified'] },
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'ES256', 'EdDSA'] },
    conformIdTokenClaims: false,
    pkce: { required: () => true },
    rotateRefreshToken: true,
    features: {
      deviceFlow: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'urn:RS256',
        useGrantedResource: () => true,
        getResourceServerInfo: resourceServer,
      },
    },
    extraTokenClaims: (ctx, token) => accounts[token.accountId],
    findAccount: (ctx, sub) => ({ accountId: sub, claims: () => ({ sub, ...accounts[sub] }) }),
    issueRefreshToken: (ctx, client, code) => code.scopes.has('offline_access'),
  });
  // What tests count: requests to the token endpoint by grant type, those that failed with "failed " before it.
  const grants = {};
  const count = (kind, ctx) => {
    const name = kind + ctx.oidc.params?.grant_type;
    grants[name] = (grants[name] ?? 0) + 1;
  };
  provider.on('grant.success', (ctx) => count('', ctx));
  provider.on('grant.error', (ctx) => count('failed ', ctx));
  const serve = provider.callback();
  server.on('request', (request, response) => {
    if (request.url === '/_grants') response.end(JSON.stringify(grants));
    else serve(request, response);
  });
  console.log(issuer);
});
