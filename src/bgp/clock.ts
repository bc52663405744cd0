/** The clock, as far as a speaker needs one: tests make it run faster. */
export interface Clock {
  /** Milliseconds since 1970. */
  now(): number;
  /** Calls back once after so many milliseconds; the function it returns takes that back. */
  after(milliseconds: number, callback: () => void): () => void;
}
