// provider.mjs ISSUER CALLBACK HOME KEYS: an OpenID Connect provider on the loopback; whoever types a name is signed in as that person. KEYS is its JWKS.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import Provider from "oidc-provider";

const [issuer, callback, home, keys] = process.argv.slice(2);
const roles = { clara: ["mkiso-clerks"], otto: ["mkiso-operators", "others"], ada: ["mkiso-admins"] };

const provider = new Provider(issuer, {
  jwks: JSON.parse(readFileSync(keys)),
  clients: [
    { client_id: "mkiso", client_secret: "of a test, and long enough: +/%", redirect_uris: [callback], post_logout_redirect_uris: [home] },
    { client_id: "public", redirect_uris: [callback], token_endpoint_auth_method: "none" },
  ],
  claims: { openid: ["sub"], profile: ["name", "roles"] },
  pkce: { required: () => true },
  cookies: { keys: ["of a test"] },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id, name: `${id[0].toUpperCase()}${id.slice(1)} Example`, roles: roles[id] }) }),
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  loadExistingGrant: async (ctx) => {
    const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
    grant.addOIDCScope("openid profile");
    await grant.save();
    return grant;
  },
  features: {
    devInteractions: { enabled: false },
    rpInitiatedLogout: {
      enabled: true,
      logoutSource: (ctx, form) => { ctx.body = `<!doctype html><title>Out</title>${form}<button form="op.logoutForm" name="logout" value="yes">Out</button>`; },
    },
  },
});
const answer = provider.callback();

createServer(async (request, response) => {
  const { pathname } = new URL(request.url, issuer);
  if (!pathname.startsWith("/interaction/")) return answer(request, response);
  try {
    await provider.interactionDetails(request, response);
    if (request.method === "GET") {
      response.setHeader("content-type", "text/html");
      return response.end(`<!doctype html><title>In</title><form method="post" action="${pathname}"><input name="login" aria-label="Name"><button>In</button></form>`);
    }
    let body = "";
    for await (const piece of request) body += piece;
    const login = new URLSearchParams(body).get("login");
    const result = login ? { login: { accountId: login } } : { error: "access_denied", error_description: "<b>no</b>" };
    return await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
  } catch (error) {
    response.statusCode = 400;
    return response.end(error.message);
  }
}).listen(new URL(issuer).port, "127.0.0.1");
