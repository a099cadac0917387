// Stands for mdurl in the bundle: destinations reach the builder as they were written, and safeUrl decides about them.
const same = <T>(url: T): T => url;

export { same as decode, same as encode, same as format, same as parse };
