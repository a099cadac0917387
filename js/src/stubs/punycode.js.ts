// Stands for punycode.js in the bundle: the page parses every address with `new URL`, which does this better.
const same = (hostname: string): string => hostname;
export default { toASCII: same, toUnicode: same };
