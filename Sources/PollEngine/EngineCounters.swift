/// What the forwarder counts at a port, beside the port's own `PortCounters`: plain words with one
/// writer, the worker.
struct EngineCounters: BitwiseCopyable {
    /// Packets that ended here as intended (sink, source).
    var consumed: UInt64 = 0
    /// Copies of these packets' bytes on their way here.
    var consumedCopies: UInt64 = 0
    /// Copies of packets from here beyond the first, made by flooding.
    var floodCopies: UInt64 = 0
    /// Generated frames put into this port (source).
    var generated: UInt64 = 0
    /// Source addresses of this port that found no room in the table.
    var unlearned: UInt64 = 0

    /// Packets for this port that found no buffer (HI-I9).
    var noBuffer: UInt64 = 0
    /// Packets for this port while no receive ring of it is enabled (VU-R-04).
    var receiveDisabled: UInt64 = 0
    /// Packets from a transmit ring of this port that is not enabled (VU-R-04).
    var transmitDisabled: UInt64 = 0
    /// Packets from here, too short to have an Ethernet header.
    var short: UInt64 = 0
    /// Packets from here to a station that is heard here as well.
    var samePort: UInt64 = 0
    /// Packets from here while there is no other port.
    var noPort: UInt64 = 0

    /// Drops by error id, those that did not occur left out.
    var drops: [String: UInt64] {
        let all: [(String, UInt64)] = [
            ("peer/no-buffer", noBuffer),
            ("peer/receive-disabled", receiveDisabled),
            ("peer/transmit-disabled", transmitDisabled),
            ("frame/short", short),
            ("switch/same-port", samePort),
            ("switch/no-port", noPort),
        ]
        return Dictionary(uniqueKeysWithValues: all.filter { $0.1 > 0 })
    }
}
