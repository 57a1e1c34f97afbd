declare module 'proxy-from-env' {
  /** The proxy for an address by the environment; empty: none. */
  export function getProxyForUrl(url: string): string
}
