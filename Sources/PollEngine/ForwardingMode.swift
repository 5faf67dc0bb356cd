/// What the workers do with packets.
public enum ForwardingMode: String, Sendable, CaseIterable {
    /// Takes every packet, looks at its header and gives the buffer back.
    case sink
    /// Fills every receive buffer with generated frames; what peers send is taken as by a sink.
    case source
    /// Sends every frame back to where it came from, with its two addresses exchanged.
    case echo
    /// Forwards by learned Ethernet addresses between any number of peers and TAP interfaces.
    case `switch`
}
