/** Path data of the icons, 16 x 16, drawn as lines. */
export const CHECK = ["M3.5 8.5l3 3 6-7"];
export const CROSS = ["M4.5 4.5l7 7m0-7l-7 7"];
export const BAN = ["M8 2.2a5.8 5.8 0 1 0 0 11.6a5.8 5.8 0 0 0 0-11.6z", "M4 4l8 8"];
export const RING = ["M8 2a6 6 0 1 0 6 6"];
export const CLOCK = ["M8 2.2a5.8 5.8 0 1 0 0 11.6a5.8 5.8 0 0 0 0-11.6z", "M8 5v3.2l2 1.3"];
export const CHEVRON = ["M6 4l4 4-4 4"];
export const SHIELD = [
  "M8 1.8l5 1.9v3.8c0 3.2-2.1 5.4-5 6.7c-2.9-1.3-5-3.5-5-6.7V3.7z",
  "M8 5.2v3M8 10.4v.1",
];
export const QUESTION = [
  "M8 2.2a5.8 5.8 0 1 0 0 11.6a5.8 5.8 0 0 0 0-11.6z",
  "M6.3 6.4a1.7 1.7 0 1 1 2.5 1.6c-.6.3-.8.6-.8 1.1M8 11.2v.1",
];
export const WARNING = ["M8 2.3l6 10.7H2z", "M8 6.3v3M8 11.2v.1"];
export const PENCIL = ["M10.5 3l2.5 2.5-7.5 7.5H3v-2.5z"];
export const STOP = [
  "M5.5 4h5A1.5 1.5 0 0 1 12 5.5v5a1.5 1.5 0 0 1-1.5 1.5h-5A1.5 1.5 0 0 1 4 10.5v-5A1.5 1.5 0 0 1 5.5 4z",
];
export const SPARK = [
  "M8 2.2c.5 3.4 1.9 4.8 5.3 5.3c-3.4.5-4.8 1.9-5.3 5.3c-.5-3.4-1.9-4.8-5.3-5.3c3.4-.5 4.8-1.9 5.3-5.3z",
];
