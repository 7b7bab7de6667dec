/** A script of the Gradio page, as a function of what Gradio gives it. */
declare module "*?element" {
  const run: (element: HTMLElement, props: object, trigger: (event: string, data?: { index: number }) => void) => void;
  export default run;
}
