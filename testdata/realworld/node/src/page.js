const dayjs = require('dayjs');
const _ = require('lodash');
const { customAlphabet } = require('nanoid');

const id = customAlphabet('abc', 4);

exports.page = () => `version @VERSION@, ${_.capitalize('year')} ${dayjs('2020-01-02').year()}, id of ${id().length}`;
