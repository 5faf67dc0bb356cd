/// What was counted at one queue pair: plain 64-bit words with one writer, the worker.
public struct PortCounters: BitwiseCopyable, Sendable, Equatable {
    /// Good packets taken from the peer's transmit ring.
    public var receivedPackets: UInt64 = 0
    /// Their bytes, without the network header.
    public var receivedBytes: UInt64 = 0
    /// Packets put into the peer's receive ring.
    public var transmittedPackets: UInt64 = 0
    /// Their bytes, without the network header.
    public var transmittedBytes: UInt64 = 0
    /// Copies of the transmitted packets' bytes on their way, the one into the ring included.
    public var copies: UInt64 = 0
    /// Notifications sent.
    public var kicksSent: UInt64 = 0
    /// Notifications that were not needed: the counter of the call eventfd was full (HI-D25).
    public var notifyFull: UInt64 = 0
    /// Publications of which the peer did not want to be told.
    public var kicksSuppressed: UInt64 = 0
    /// Polls that found nothing.
    public var emptyPolls: UInt64 = 0
    /// Segments of length 0 that were passed over (HI-A11).
    public var emptySegments: UInt64 = 0

    /// Packets shorter than the network header (HI-A15).
    public var shortHeader: UInt64 = 0
    /// Packets without a byte behind the header (HI-A11, HI-A16).
    public var empty: UInt64 = 0
    /// Packets whose checksum would lie outside them (HI-A31).
    public var checksumRange: UInt64 = 0
    /// Packets that ask for an offload which was not negotiated (HI-A32).
    public var gso: UInt64 = 0
    /// Packets above the largest size, or in too many pieces (HI-A33).
    public var tooBig: UInt64 = 0
    /// Packets that no receive buffer of this peer can hold, or that are longer than what this
    /// device sends.
    public var bufferSize: UInt64 = 0
    /// Merged packets of 0 buffers, or of more than the device has returned (HI-A45).
    public var bufferCount: UInt64 = 0
    /// Buffers of which the device claims to have filled more than there was: cut, not dropped
    /// (HI-A43).
    public var cutLengths: UInt64 = 0
    /// Packets that the device had been given, and had not said to be done with, when its port was
    /// taken away (HI-A48).
    public var unfinished: UInt64 = 0

    /// All zero.
    public init() {}

    /// Drops by error id, those that did not occur left out.
    public var drops: [String: UInt64] {
        let all: [(String, UInt64)] = [
            ("net/short-header", shortHeader), ("net/empty", empty),
            ("net/csum-range", checksumRange), ("net/gso", gso), ("net/too-big", tooBig),
            ("peer/buffer-size", bufferSize), ("net/num-buffers", bufferCount),
        ]
        return Dictionary(uniqueKeysWithValues: all.filter { $0.1 > 0 })
    }
}
