// The types of fkp.js, which the build writes into types/.
export * from "./types/index.js";
