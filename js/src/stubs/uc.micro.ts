// Stands for uc.micro in the bundle: its long lists of punctuation are a property of regular expressions by now.
export const P = /\p{P}/u;
export const S = /\p{S}/u;
