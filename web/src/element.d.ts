/** A script of the Gradio page, as a function of what Gradio gives it. */
declare module "*?element" {
  export default function run(element: HTMLElement, props: object, trigger: (event: string, data?: { index: number }) => void): void;
}
