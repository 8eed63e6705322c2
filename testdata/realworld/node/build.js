// build.js FROM TO: copies the sources, with the build's version put in.
const fs = require('fs');
const path = require('path');

const [from, to] = process.argv.slice(2);
const { version } = require('./package.json');
fs.mkdirSync(to, { recursive: true });
for (const name of fs.readdirSync(from).sort()) {
  const text = fs.readFileSync(path.join(from, name), 'utf8').replaceAll('@VERSION@', version);
  fs.writeFileSync(path.join(to, name), text);
  console.log(`${name}: ${text.length} bytes`);
}
