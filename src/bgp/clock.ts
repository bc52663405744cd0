/** The clock, as far as a speaker needs one: tests make it run faster. */
export interface Clock {
  /** Milliseconds since 1970. */
  now(): number;
  /** Milliseconds since some moment, whoever may set the time of day meanwhile: for what lasts. */
  elapsed(): number;
  /** Calls back once after so many milliseconds; the function it returns takes that back. */
  after(milliseconds: number, callback: () => void): () => void;
}
