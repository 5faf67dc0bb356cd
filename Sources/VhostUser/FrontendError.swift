public import HostSystem
public import VirtioSpec

/// Why something that a front-end wanted of its back-end did not happen. After any of them but
/// `refused` and `notNegotiated` the connection is closed.
public enum FrontendError: Error, Sendable, CustomStringConvertible {
    /// The kernel refused.
    case system(SystemError)
    /// The back-end broke the protocol or did not answer in time (HI-D60, HI-D61).
    case violation(Violation)
    /// The back-end answered that it did not carry out a request.
    case refused(request: String, answer: UInt64)
    /// The back-end closed the connection while this was going on.
    case closed(during: String)
    /// The caller gave up.
    case cancelled
    /// A request needs a protocol feature that the back-end does not have (VU-F-03).
    case notNegotiated(request: String)
    /// The back-end lacks features without which the front-end cannot work.
    case missingFeatures(FeatureBits)
    /// After a reconnect the back-end is not what it was: the differences (HI-D63).
    case featureLoss([String])
    /// An argument that no back-end could accept.
    case invalid(String)
    /// The back-end, which shares the kick eventfd, makes it block whoever signals it (HI-D25).
    case kickBlocked(ring: Int)

    /// The error id, where there is one.
    public var id: String? {
        switch self {
        case .violation(let violation): violation.id.rawValue
        case .missingFeatures, .featureLoss: ViolationID.featureLoss.rawValue
        case .notNegotiated: ViolationID.notNegotiated.rawValue
        default: nil
        }
    }

    /// One line for people.
    public var description: String {
        switch self {
        case .system(let error): error.description
        case .violation(let violation): violation.description
        case .refused(let request, let answer): "the back-end refused \(request): \(answer)"
        case .closed(let step): "the back-end closed the connection during \(step)"
        case .cancelled: "cancelled"
        case .notNegotiated(let request): "not supported by the back-end: \(request)"
        case .missingFeatures(let features):
            "vu/feature-loss: the back-end lacks feature bits \(features.bits)"
        case .featureLoss(let list): "vu/feature-loss: \(list.joined(separator: ", "))"
        case .invalid(let what): what
        case .kickBlocked(let ring): "notify/blocked: the kick eventfd of ring \(ring) blocks"
        }
    }
}
