const express = require('express');
const helmet = require('helmet');
const pino = require('pino');
const { page } = require('./page');

const log = pino();
const app = express();
app.use(helmet());
app.get('/', (request, response) => response.send(page()));
app.get('/health', (request, response) => response.json({ ok: true, version: '@VERSION@' }));

if (process.argv.includes('--self-test')) {
  console.log(page());
} else {
  app.listen(3000, () => log.info('listening on 3000'));
}
