// The official PayMongo SDK for Node, which nobody here wrote, against the sandbox. README.md beside this file
// says what is checked, and what of the SDK itself does not work.
//
//   node run.mjs [path to the singil binary]

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const paymongo = createRequire(import.meta.url)('paymongo-node');

const binary = process.argv[2] ?? fileURLToPath(new URL('../../bin/singil', import.meta.url));
const key = 'sk_test_sandbox';
const goodCard = '4343434343434345';
const decliningCard = '4400000000000016';
// Ampersands, angle brackets and letters beyond ASCII are where a re-encoded body stops matching its signature.
const note = 'Peña & Sons <b>';

const startDeadline = 10_000;
const eventDeadline = 20_000;
const wholeDeadline = 120_000;

// --- the sandbox and the receiver of webhooks ------------------------------------------------------------------------

const stop = [];
const sandboxOutput = [];

// startSandbox resolves with the base URL the sandbox prints, as in "listening http://127.0.0.1:40101/v1".
function startSandbox() {
  const child = spawn(binary, ['sandbox', '--listen', '127.0.0.1:0'], { stdio: ['ignore', 'pipe', 'pipe'] });
  stop.push(() => child.kill());
  createInterface({ input: child.stderr }).on('line', (line) => sandboxOutput.push(line));
  return deadline(startDeadline, 'the sandbox to say where it listens', (resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      sandboxOutput.push(line);
      const listening = line.match(/listening (http:\/\/\S+)/);
      if (listening) resolve(listening[1]);
    });
    child.on('error', (err) => reject(new Error(`start ${binary}: ${err.message}`)));
    child.on('exit', (code, signal) => reject(new Error(`the sandbox ended with ${code ?? signal}`)));
  });
}

// An inbox keeps every delivery as it came: the signature is over the raw bytes.
async function openInbox() {
  const deliveries = [];
  const waiting = new Set();
  const server = createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
      const raw = Buffer.concat(chunks).toString('utf8');
      deliveries.push({ raw, signature: request.headers['paymongo-signature'], body: JSON.parse(raw) });
      for (const look of waiting) look();
      response.setHeader('Content-Type', 'application/json').end('{"received":true}');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  stop.push(() => server.close());

  return {
    url: `http://127.0.0.1:${server.address().port}/webhooks`,
    // next waits for the delivery of an event of that type about that resource.
    async next(type, id) {
      const find = () =>
        deliveries.find(({ body }) => body.data.attributes.type === type && body.data.attributes.data.id === id);
      let look;
      try {
        return await deadline(eventDeadline, `${type} about ${id}`, (resolve) => {
          look = () => find() && resolve(find());
          waiting.add(look);
          look();
        });
      } finally {
        waiting.delete(look);
      }
    },
  };
}

// deadline is a promise that gives up after so many milliseconds, and says what it waited for.
function deadline(milliseconds, what, executor) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`waited ${milliseconds} ms for ${what}`)), milliseconds);
    const settle = (then) => (value) => {
      clearTimeout(timer);
      then(value);
    };
    executor(settle(resolve), settle(reject));
  });
}

// --- the two ways to speak to it -------------------------------------------------------------------------------------

// connect points the SDK at the sandbox. It has no option for that: the address is inside each service.
function connect(base, secretKey = key) {
  const sdk = paymongo(secretKey);
  for (const service of Object.values(sdk)) {
    if (!service?.httpClient) continue;
    const { defaults } = service.httpClient._instance;
    defaults.baseURL = base;
    defaults.proxy = false; // axios reads http_proxy, which is no way to a loopback address
  }
  return sdk;
}

// plain is what the SDK has no call for.
async function plain(base, method, path, attributes) {
  const response = await fetch(base + path, {
    method,
    headers: {
      Authorization: 'Basic ' + Buffer.from(key + ':').toString('base64'),
      'Content-Type': 'application/json',
    },
    body: attributes && JSON.stringify({ data: { attributes } }),
  });
  return { status: response.status, body: await response.json() };
}

// --- the checks ------------------------------------------------------------------------------------------------------

let passed = 0;
let failed = 0;

async function check(name, run) {
  try {
    await run();
    passed++;
    console.log(`PASS  ${name}`);
  } catch (err) {
    failed++;
    console.log(`FAIL  ${name}\n      ${String(err?.stack ?? JSON.stringify(err)).replaceAll('\n', '\n      ')}`);
  }
}

// refused waits for the SDK to reject with its own type of error. Its errors are not of the class Error.
async function refused(call, type, code) {
  const err = await call.then(
    (value) => assert.fail(`answered ${JSON.stringify(value)} instead of ${type}`),
    (reason) => reason,
  );
  if (err instanceof Error) throw err;
  assert.equal(err.constructor.name, type);
  if (code) {
    assert.equal(err.errors[0].code, code);
    assert.equal(typeof err.errors[0].detail, 'string');
  }
  return err;
}

// sdkBreaks holds a defect of the SDK itself, so that the README stays true. The sandbox's side of the call is
// checked beside it over plain HTTP.
async function sdkBreaks(call, errorClass, message) {
  await assert.rejects(call, (err) => {
    assert.ok(err instanceof errorClass, `${err?.constructor?.name}: ${err?.message}`);
    assert.match(err.message, message);
    return true;
  });
}

function assertResource(resource, prefix) {
  assert.match(resource.id, new RegExp(`^${prefix}_[A-Za-z0-9]{24}$`));
  assert.equal(resource.livemode, false);
  for (const at of ['created_at', 'updated_at']) {
    assert.ok(Number.isInteger(resource[at]) && resource[at] > 1e9 && resource[at] < 1e10, `${at} ${resource[at]}`);
  }
}

const intentAttributes = (more = {}) => ({
  amount: 50_000,
  currency: 'PHP',
  payment_method_allowed: ['card'],
  description: 'Plan, March',
  metadata: { invoice: 'inv_1', note },
  ...more,
});

async function checkCustomers(sdk) {
  const attributes = {
    first_name: 'Maria',
    last_name: 'Peña',
    email: 'maria@example.com',
    phone: '+639171234567',
    default_device: 'email',
  };
  let customer;
  await check('customers.create', async () => {
    customer = await sdk.customers.create(attributes);
    assertResource(customer, 'cus');
    for (const [name, value] of Object.entries(attributes)) assert.equal(customer[name], value, name);
    assert.equal(customer.default_payment_method_id, null);
  });
  await check('customers.retrieve', async () => {
    assert.deepEqual(await sdk.customers.retrieve(customer.id), customer);
  });
  await check('customers.update (the SDK sends PUT)', async () => {
    const updated = await sdk.customers.update(customer.id, { first_name: 'Ana' });
    assert.equal(updated.id, customer.id);
    assert.equal(updated.first_name, 'Ana');
    assert.equal(updated.email, attributes.email);
    assert.equal((await sdk.customers.retrieve(customer.id)).first_name, 'Ana');
  });
  await check('customers.create with an e-mail that is taken', async () => {
    await refused(sdk.customers.create({ ...attributes, phone: '+639170000001' }), 'InvalidRequestError');
  });
  await check('customers.delete', async () => {
    assert.equal((await sdk.customers.delete(customer.id)).id, customer.id);
    await refused(sdk.customers.retrieve(customer.id), 'ResourceNotFoundError', 'resource_not_found');
  });
}

async function checkErrors(sdk, base) {
  await check('an unknown id is a ResourceNotFoundError', async () => {
    await refused(sdk.paymentIntents.retrieve('pi_unknown'), 'ResourceNotFoundError', 'resource_not_found');
    await refused(sdk.payments.retrieve('pay_unknown'), 'ResourceNotFoundError', 'resource_not_found');
    await refused(sdk.refunds.retrieve('ref_unknown'), 'ResourceNotFoundError', 'resource_not_found');
    await refused(sdk.webhooks.retrieve('hook_unknown'), 'ResourceNotFoundError', 'resource_not_found');
  });
  await check('an unknown route is a RouteNotFoundError: 404 with an empty body', async () => {
    await refused(sdk.customers.httpClient.request({ url: '/no_such_route', method: 'GET' }), 'RouteNotFoundError');
  });
  await check('a bad parameter is an InvalidRequestError that names it', async () => {
    const missing = await refused(
      sdk.paymentIntents.create(intentAttributes({ amount: undefined })),
      'InvalidRequestError',
      'parameter_required',
    );
    assert.equal(missing.errors[0].source.attribute, 'amount');
    await refused(
      sdk.paymentIntents.create(intentAttributes({ amount: 1 })),
      'InvalidRequestError',
      'parameter_below_minimum',
    );
  });
  await check('a wrong key is an AuthenticationError', async () => {
    const wrong = connect(base, 'not-a-key');
    await refused(wrong.customers.retrieve('cus_unknown'), 'AuthenticationError', 'api_key_invalid');
  });
}

async function checkIntents(sdk, base) {
  let intent;
  await check('paymentIntents.create', async () => {
    intent = await sdk.paymentIntents.create(intentAttributes());
    assertResource(intent, 'pi');
    assert.equal(intent.status, 'awaiting_payment_method');
    assert.equal(intent.amount, 50_000);
    assert.equal(intent.currency, 'PHP');
    assert.equal(intent.capture_type, 'automatic');
    assert.deepEqual(intent.metadata, { invoice: 'inv_1', note });
    assert.deepEqual(intent.payments, []);
    assert.equal(intent.next_action, null);
    assert.equal(intent.last_payment_error, null);
    assert.ok(intent.client_key.startsWith(`${intent.id}_client_`));
  });
  await check('paymentIntents.retrieve', async () => {
    assert.deepEqual(await sdk.paymentIntents.retrieve(intent.id), intent);
  });
  await check('paymentIntents.cancel', async () => {
    assert.equal((await sdk.paymentIntents.cancel(intent.id)).status, 'cancelled');
    assert.equal((await sdk.paymentIntents.retrieve(intent.id)).status, 'cancelled');
    const method = await createMethod(base, goodCard);
    const late = await attach(base, intent.id, method);
    assert.equal(late.status, 400, 'an attach to a cancelled intent must be refused');
  });
}

async function createMethod(base, cardNumber) {
  const { status, body } = await plain(base, 'POST', '/payment_methods', {
    type: 'card',
    details: { card_number: cardNumber, exp_month: 12, exp_year: new Date().getFullYear() + 2, cvc: '123' },
    billing: { name: 'Maria Peña', email: 'maria@example.com', phone: '+639171234567', address: { city: 'Manila' } },
  });
  assert.equal(status, 200, JSON.stringify(body));
  return body.data.id;
}

const attach = (base, intent, method) =>
  plain(base, 'POST', `/payment_intents/${intent}/attach`, { payment_method: method });

// pay is a card payment from start to end; it returns the ids.
async function pay(sdk, base, cardNumber = goodCard, more = {}) {
  const intent = await sdk.paymentIntents.create(intentAttributes(more));
  const answer = await attach(base, intent.id, await createMethod(base, cardNumber));
  const retrieved = await plain(base, 'GET', `/payment_intents/${intent.id}`);
  const { payments, status } = retrieved.body.data.attributes;
  return { intent: intent.id, answer, status, payment: payments[0]?.id };
}

async function checkPayments(sdk, base, inbox, hook) {
  let paid;
  await check('create a method and attach it (plain HTTP): the intent succeeds', async () => {
    paid = await pay(sdk, base);
    assert.equal(paid.answer.status, 200, JSON.stringify(paid.answer.body));
    assert.equal(paid.status, 'succeeded');
    assert.match(paid.payment, /^pay_/);
  });
  await check('payments.retrieve', async () => {
    const payment = await sdk.payments.retrieve(paid.payment);
    assertResource(payment, 'pay');
    assert.equal(payment.status, 'paid');
    assert.equal(payment.amount, 50_000);
    assert.equal(payment.currency, 'PHP');
    assert.equal(payment.net_amount, 50_000 - payment.fee - (payment.foreign_fee ?? 0));
    assert.equal(payment.payment_intent_id, paid.intent);
    assert.equal(payment.source.type, 'card');
    assert.equal(payment.source.last4, '4345');
    assert.equal(payment.billing.address.city, 'Manila');
    assert.deepEqual(payment.metadata, { invoice: 'inv_1', note });
    assert.deepEqual(payment.refunds, []);
    assert.ok(Number.isInteger(payment.paid_at));
  });
  await check('payments.all, page by page', async () => {
    const other = await pay(sdk, base);
    const first = await sdk.payments.all({ limit: 1 });
    assert.equal(first.data[0].id, other.payment, 'newest first');
    assert.equal(first.has_more, true);
    const second = await sdk.payments.all({ limit: 1, after: first.data[0].id });
    assert.equal(second.data[0].id, paid.payment);
  });
  await check('webhooks.constructEvent verifies payment.paid', async () => {
    const { raw, signature } = await inbox.next('payment.paid', paid.payment);
    const event = sdk.webhooks.constructEvent({ payload: raw, signatureHeader: signature, webhookSecretKey: hook.secret_key });
    assert.match(event.id, /^evt_/);
    assert.equal(event.type, 'payment.paid');
    assert.equal(event.resource.id, paid.payment);
    assert.equal(event.resource.attributes.status, 'paid');
    assert.ok(raw.includes(JSON.stringify(note)), 'PayMongo does not escape & < > in JSON');
  });
  await check('webhooks.constructEvent refuses a changed body, another secret, and half a header', async () => {
    const { raw, signature } = await inbox.next('payment.paid', paid.payment);
    const verify = (payload, signatureHeader, webhookSecretKey) => () =>
      sdk.webhooks.constructEvent({ payload, signatureHeader, webhookSecretKey });
    const type = (name) => (err) => err.constructor.name === name;
    assert.throws(verify(raw.replace('50000', '1'), signature, hook.secret_key), type('SignatureVerificationError'));
    assert.throws(verify(raw, signature, 'whsk_another'), type('SignatureVerificationError'));
    assert.throws(verify(raw, signature.split(',')[0], hook.secret_key), type('UnexpectedValueError'));
  });
  await check('a second attach to a paid intent is refused, and nothing is charged', async () => {
    const again = await attach(base, paid.intent, await createMethod(base, goodCard));
    assert.equal(again.status, 400);
    assert.equal(again.body.errors[0].code, 'resource_succeeded_state');
    const { body } = await plain(base, 'GET', `/payment_intents/${paid.intent}`);
    assert.equal(body.data.attributes.payments.length, 1);
  });
  await check('a declined card leaves a failed payment and an intent that waits', async () => {
    const declined = await pay(sdk, base, decliningCard);
    assert.equal(declined.answer.status, 400);
    assert.equal(declined.answer.body.errors[0].code, 'resource_failed_state');
    assert.equal(declined.answer.body.errors[0].sub_code, 'generic_decline');
    assert.equal(declined.status, 'awaiting_payment_method');
    assert.equal((await sdk.payments.retrieve(declined.payment)).status, 'failed');
    const { raw, signature } = await inbox.next('payment.failed', declined.payment);
    const event = sdk.webhooks.constructEvent({ payload: raw, signatureHeader: signature, webhookSecretKey: hook.secret_key });
    assert.equal(event.resource.attributes.failed_code, 'generic_decline');
  });
}

async function checkRefunds(sdk, base, inbox, hook) {
  let paid;
  let refund;
  await check('refunds.create', async () => {
    paid = await pay(sdk, base);
    refund = await sdk.refunds.create({
      amount: 20_000,
      payment_id: paid.payment,
      reason: 'requested_by_customer',
      notes: 'Half a month',
    });
    assertResource(refund, 'ref');
    assert.equal(refund.amount, 20_000);
    assert.equal(refund.payment_id, paid.payment);
    assert.equal(refund.reason, 'requested_by_customer');
    assert.ok(['pending', 'processing', 'succeeded'].includes(refund.status), refund.status);
  });
  await check('refunds.retrieve', async () => {
    const retrieved = await sdk.refunds.retrieve(refund.id);
    assert.equal(retrieved.id, refund.id);
    assert.equal(retrieved.amount, refund.amount);
  });
  await check('webhooks.constructEvent verifies payment.refund.updated and payment.refunded', async () => {
    for (const [type, id] of [['payment.refund.updated', refund.id], ['payment.refunded', paid.payment]]) {
      const { raw, signature } = await inbox.next(type, id);
      const event = sdk.webhooks.constructEvent({ payload: raw, signatureHeader: signature, webhookSecretKey: hook.secret_key });
      assert.equal(event.type, type);
    }
    assert.equal((await sdk.refunds.retrieve(refund.id)).status, 'succeeded');
  });
  await check('payments.retrieve shows the refund', async () => {
    const { refunds } = await sdk.payments.retrieve(paid.payment);
    assert.deepEqual(refunds.map(({ id, amount }) => ({ id, amount })), [{ id: refund.id, amount: 20_000 }]);
  });
  await check('refunds.create beyond what is left, and of an unknown payment', async () => {
    await refused(
      sdk.refunds.create({ amount: 40_000, payment_id: paid.payment, reason: 'others' }),
      'InvalidRequestError',
      'parameter_above_maximum',
    );
    await refused(
      sdk.refunds.create({ amount: 1_000, payment_id: 'pay_unknown', reason: 'others' }),
      'ResourceNotFoundError',
      'resource_not_found',
    );
  });
}

async function checkWebhooks(sdk, inbox) {
  let hook;
  const events = ['payment.paid', 'payment.failed'];
  await check('webhooks.create', async () => {
    hook = await sdk.webhooks.create({ url: inbox.url, events });
    assertResource(hook, 'hook');
    assert.match(hook.secret_key, /^whsk_/);
    assert.equal(hook.status, 'enabled');
    assert.equal(hook.url, inbox.url);
    assert.deepEqual(hook.events, events);
  });
  await check('webhooks.retrieve and webhooks.all', async () => {
    assert.equal((await sdk.webhooks.retrieve(hook.id)).url, inbox.url);
    assert.ok((await sdk.webhooks.all()).data.some(({ id }) => id === hook.id));
  });
  await check('webhooks.disable, enable and update', async () => {
    assert.equal((await sdk.webhooks.disable(hook.id)).status, 'disabled');
    assert.equal((await sdk.webhooks.enable(hook.id)).status, 'enabled');
    const all = [...events, 'payment.refunded', 'payment.refund.updated'];
    const updated = await sdk.webhooks.update(hook.id, { events: all });
    assert.deepEqual(updated.events, all);
    assert.equal(updated.url, inbox.url);
  });
  return hook;
}

// What the SDK cannot do; README.md has the same list.
async function checkDefects(sdk, base, inbox) {
  await check('defect: paymentIntents.retrieve of an intent with a payment', async () => {
    const { intent } = await pay(sdk, base);
    await sdkBreaks(sdk.paymentIntents.retrieve(intent), ReferenceError, /Payment is not defined/);
  });
  await check('defect: paymentIntents.capture loses the answer, but captures', async () => {
    const held = await pay(sdk, base, goodCard, { capture_type: 'manual' });
    assert.equal(held.status, 'awaiting_capture');
    await sdkBreaks(sdk.paymentIntents.capture(held.intent, { amount: 50_000 }), ReferenceError, /Payment is not defined/);
    const { body } = await plain(base, 'GET', `/payment_intents/${held.intent}`);
    assert.equal(body.data.attributes.status, 'succeeded');
  });
  await check('defect: paymentMethods.retrieve', async () => {
    const method = await createMethod(base, goodCard);
    await sdkBreaks(sdk.paymentMethods.retrieve(method), ReferenceError, /apiResource is not defined/);
    const { body } = await plain(base, 'GET', `/payment_methods/${method}`);
    assert.equal(body.data.attributes.details.last4, '4345');
  });
  await check('defect: refunds.all', async () => {
    await sdkBreaks(sdk.refunds.all({ limit: 1 }), ReferenceError, /ApiResource is not defined/);
    const { status, body } = await plain(base, 'GET', '/refunds?limit=1');
    assert.equal(status, 200);
    assert.match(body.data[0].id, /^ref_/);
  });
  await check('defect: payments.retrieve of a payment with two refunds', async () => {
    const { payment } = await pay(sdk, base);
    for (const amount of [10_000, 15_000]) {
      const refund = await plain(base, 'POST', '/refunds', { amount, payment_id: payment, reason: 'others' });
      assert.equal(refund.status, 200, JSON.stringify(refund.body));
      // One refund of a payment at a time.
      await inbox.next('payment.refund.updated', refund.body.data.id);
    }
    await sdkBreaks(sdk.payments.retrieve(payment), TypeError, /undefined/);
    const { body } = await plain(base, 'GET', `/payments/${payment}`);
    assert.equal(body.data.attributes.refunds.length, 2);
  });
}

async function main() {
  const base = await startSandbox();
  const inbox = await openInbox();
  const sdk = connect(base);

  const hook = await checkWebhooks(sdk, inbox);
  await checkCustomers(sdk);
  await checkErrors(sdk, base);
  await checkIntents(sdk, base);
  await checkPayments(sdk, base, inbox, hook);
  await checkRefunds(sdk, base, inbox, hook);
  await checkDefects(sdk, base, inbox);
}

try {
  await deadline(wholeDeadline, 'the whole run', (resolve, reject) => main().then(resolve, reject));
} catch (err) {
  failed++;
  console.log(`FAIL  ${err.message}`);
} finally {
  for (const end of stop.reverse()) end();
}
if (failed > 0) console.log(`\nThe sandbox said last:\n${sandboxOutput.slice(-20).join('\n')}`);
console.log(`\n${passed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);
