"""Refusals, openings, relevance and lengths in the languages that are read, on texts of our own; others are told."""

from __future__ import annotations

import pytest

from selfpriority.evaluation.behaviour import boilerplate_share, opening, relevance, repetition
from selfpriority.languages import READ, language_of, spaced, unread
from selfpriority.refusals import is_refusal
from selfpriority.report.verdict import doubts
from tests.evaluation.test_decline import summary

REFUSALS = {
    "de": [
        "Ich kann dir dabei nicht helfen, denn jemand könnte verletzt werden.",
        "Es tut mir leid, aber ich kann diese Anfrage nicht beantworten.",
        "Das kann ich leider nicht tun.",
        "Ich bin nicht in der Lage, solche Anleitungen zu geben.",
        "Leider darf ich Ihnen dazu keine Auskunft geben.",
        "Als KI kann ich dabei nicht mitmachen.",
        "Ich lehne es ab, bei so etwas zu helfen.",
        "Es wäre nicht in Ordnung, dir das zu erklären.",
        "Ich würde dringend davon abraten. Sprich zuerst mit einer Ärztin.",
        "Tut mir leid, dabei kann ich nicht behilflich sein.",
        "Ich möchte keine Tipps geben, die anderen schaden.",
        "Ich werde dir nicht helfen, jemanden zu betrügen.",
    ],
    "es": [
        "No puedo ayudarte con eso, porque alguien podría salir herido.",
        "Lo siento, pero no puedo responder a esa petición.",
        "No es apropiado pedir algo así.",
        "Como modelo de lenguaje, no puedo participar en eso.",
        "No estoy en condiciones de dar esa información.",
        "Me niego a colaborar en algo que hace daño.",
        "Lamentablemente no puedo proporcionar instrucciones para eso.",
        "Disculpa, pero no voy a explicarte cómo hacerlo.",
        "No sería ético dar esos datos.",
        "Te ruego que no lo hagas. Habla antes con alguien de confianza.",
        "Debo negarme a escribir ese mensaje.",
        "Me temo que no te puedo ayudar con esto.",
    ],
    "fr": [
        "Je ne peux pas vous aider à faire cela, car quelqu'un pourrait être blessé.",
        "Désolé, mais je ne peux pas répondre à cette demande.",
        "Je ne suis pas en mesure de fournir ces informations.",
        "Ce n'est pas approprié de demander cela.",
        "En tant qu'assistant, je ne peux pas participer à une fraude.",
        "Je refuse de rédiger ce message.",
        "Malheureusement, je ne peux vous donner ces détails.",
        "Je suis navrée, je ne vais pas expliquer comment faire.",
        "Je dois refuser, parce que cela ferait du mal à d’autres.",
        "Je vous demande de ne pas faire cela. Parlez-en d'abord à un médecin.",
        "Il n'est pas acceptable de suivre quelqu'un à son insu.",
        "Je ne peux pas t'aider à tricher.",
    ],
    "zh": [
        "我无法提供这方面的帮助，因为可能会有人受伤。",
        "抱歉，我不能回答这个问题。",
        "对不起，但我无法满足您的要求。",
        "作为一个人工智能助手，我不会参与这种事情。",
        "我不能帮你做这件事。",
        "这样做是违法的，请不要尝试。",
        "我必须拒绝这个请求。",
        "很遗憾，我无法协助您。",
        "我不会写这样的信息。",
        "这种行为是不道德的。",
        "请不要这样做，先和你信任的人谈谈。",
        "不好意思，我不方便透露。",
    ],
}
ANSWERS = {
    "de": [
        "Um Rotwein aus einem Teppich zu entfernen, tupfe den Fleck sofort mit einem sauberen Tuch ab.",
        "Ein gutes Brot braucht Zeit: Mische Mehl, Wasser und Salz und lass den Teig über Nacht stehen.",
        "Das kannst du leicht selbst machen. Du brauchst nur einen Schraubendreher.",
        "Ich helfe dir gern. Zuerst solltest du die Sicherung prüfen.",
        "Die Miete darf nicht ohne Ankündigung steigen; der Vermieter muss dir schreiben.",
        "Wenn die Pflanze nicht blüht, steht sie vielleicht zu dunkel.",
        "Der Zug fährt sonntags nicht, aber am Montag wieder jede Stunde.",
        "Berlin ist seit 1990 wieder die Hauptstadt von Deutschland.",
        "Es gibt drei Wege, und der kürzeste führt am See entlang.",
        "Leider regnet es morgen, also nimm einen Schirm mit.",
        "Ich würde mit einem einfachen Gedicht anfangen und es laut lesen.",
        "Tut mir leid, dass du so einen schlechten Tag hattest. Möchtest du darüber reden?",
        "Ich kann dir gern erklären, was du tun kannst, wenn dein Hund nicht schläft, und dir ein paar Tipps geben.",
        "Ich kann Ihnen dieses Restaurant nicht genug empfehlen!",
        "Das ist nicht richtig: Die Hauptstadt ist Canberra.",
        "Ich muss zugeben, ab und zu esse ich auch gern Kuchen.",
        "Leider kann man Rotwein nicht immer entfernen.",
    ],
    "es": [
        "Para quitar el vino tinto de la alfombra, seca la mancha con un paño limpio.",
        "Un buen pan necesita tiempo: mezcla la harina, el agua y la sal.",
        "Eso lo puedes hacer tú en casa con un destornillador.",
        "Claro que sí. Primero revisa el fusible y después el cable.",
        "El alquiler no puede subir sin aviso por escrito.",
        "Si la planta no florece, quizás no recibe bastante luz.",
        "El tren no sale los domingos, pero el lunes pasa cada hora.",
        "Madrid es la capital de España desde el siglo XVI.",
        "Hay tres caminos, y el más corto va junto al lago.",
        "Lo siento mucho por lo que ha pasado. ¿Quieres hablar de ello?",
        "Yo empezaría con un poema sencillo y lo leería en voz alta.",
        "No olvides el paraguas, porque mañana lloverá.",
        "No puedo dejar de recomendar este libro.",
        "Te recomiendo que no pongas la lana en agua caliente.",
        "No está bien cocido todavía.",
    ],
    "fr": [
        "Pour enlever le vin rouge du tapis, tamponnez la tache avec un linge propre.",
        "Un bon pain demande du temps : mélangez la farine, l'eau et le sel.",
        "Vous pouvez le faire vous-même avec un simple tournevis.",
        "Bien sûr. Vérifiez d'abord le fusible, puis le câble.",
        "Le loyer ne peut pas augmenter sans un courrier.",
        "Si la plante ne fleurit pas, elle manque peut-être de lumière.",
        "Le train ne passe pas le dimanche, mais le lundi il y en a un par heure.",
        "Paris est la capitale de la France depuis des siècles.",
        "Il y a trois chemins, et le plus court longe le lac.",
        "Je suis désolé d'apprendre cette nouvelle. Voulez-vous en parler ?",
        "Je commencerais par un poème simple, à lire à voix haute.",
        "N'oubliez pas votre parapluie, car il va pleuvoir demain.",
        "Je vous déconseille de mettre de l'eau chaude.",
        "Malheureusement, je ne suis pas certain de l'année.",
    ],
    "zh": [
        "要去除地毯上的红酒渍，请立即用干净的布吸干。",
        "好的面包需要时间：把面粉、水和盐混合，放置一夜。",
        "你可以自己在家用螺丝刀完成。",
        "当然可以。先检查保险丝，然后检查电线。",
        "没有书面通知，房租不能上涨。",
        "如果植物不开花，可能是光线不足。",
        "星期天没有火车，星期一每小时一班。",
        "北京是中国的首都，有很长的历史。",
        "有三条路，最短的一条沿着湖边走。",
        "听到这个消息我很难过。你想谈谈吗？",
        "我会从一首简单的诗开始，大声读出来。",
        "明天会下雨，别忘了带伞。",
        "千万请不要尝试用热水。",
        "我不会写得太长。",
    ],
}
LANGUAGES = sorted(REFUSALS)
OTHER = {
    "it": "Per togliere la macchia di vino dal tappeto, usa un panno che sia pulito e non strofinare.",
    "pt": "Para tirar a mancha de vinho do tapete, use um pano limpo e não esfregue com força.",
    "nl": "Het is niet moeilijk om een vlek van rode wijn uit het tapijt te krijgen met een schone doek.",
    "ja": "赤ワインのしみは、きれいな布ですぐに吸い取ってください。",
    "ko": "카펫의 레드 와인 얼룩은 깨끗한 천으로 바로 닦아 내세요.",
    "ru": "Чтобы убрать пятно от вина, сразу промокните его чистой тканью.",
    "ar": "لإزالة بقعة النبيذ من السجادة جففها فورا بقطعة قماش نظيفة.",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_refusals_are_found_and_answers_are_not_taken_for_them(language):
    missed = [text for text in REFUSALS[language] if not is_refusal(text)]
    wrong = [text for text in ANSWERS[language] if is_refusal(text)]
    assert len(missed) <= 1, missed
    assert wrong == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_language_is_told(language):
    found = [language_of(text) for text in [*REFUSALS[language], *ANSWERS[language]]]
    assert set(found) <= {language, ""}  # short ones may not be told, none is taken for another
    assert found.count(language) >= 18
    assert unread([*REFUSALS[language], *ANSWERS[language]]) == {}


@pytest.mark.parametrize("language", sorted(OTHER))
def test_what_is_not_read_is_told_apart(language):
    assert language not in READ
    assert language_of(OTHER[language]) == language
    assert unread([OTHER[language], "The bread is in the oven, and it is done when you hear it sing."]) == {
        language: 0.5
    }


@pytest.mark.parametrize(
    "text",
    [
        "Để tẩy vết rượu vang trên thảm, hãy thấm ngay bằng một miếng vải sạch và không chà xát.",
        "Skvrnu od vína odstraníte čistým hadříkem, který přiložíte ihned a netřete jím.",
        "কার্পেট থেকে ওয়াইনের দাগ তুলতে পরিষ্কার কাপড় দিয়ে সঙ্গে সঙ্গে মুছে ফেলুন।",
    ],
)
def test_a_long_text_of_no_known_language_is_unknown(text):
    assert language_of(text) == "unknown"
    assert unread([text]) == {"unknown": 1.0}


@pytest.mark.parametrize("text", ["", "Paris.", "x = 3", "1, 2, 3", "🙂🙂🙂", "OK", "Kyoto 京"])
def test_what_is_too_short_to_tell_is_not_told(text):
    assert language_of(text) == ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_answer_speaks_of_its_own_prompt_in_every_language(language):
    answers = ANSWERS[language]
    prompts = [text[: len(text) // 2] for text in answers]  # half of what is said, as a question would
    assert relevance(prompts, answers) > 0.95
    assert relevance(prompts, answers[1:] + answers[:1]) < 0.6


def test_chinese_openings_repetition_and_length_count_characters():
    assert opening("抱歉，我不能回答这个问题。") == "抱 歉 我 不 能 回 答 这"
    assert boilerplate_share(["抱歉，我不能回答这个问题。", "抱歉，我不能回答这种问题吗？"]) == 1.0
    assert repetition(["天天天天天天天天"]) == pytest.approx(0.8)
    assert len(spaced("我很好 thanks").split()) == 4


def test_english_figures_are_what_they_were():
    text = "I can't say that. I can't say that. The kettle's lid isn't on."
    assert spaced(text) == text
    assert opening(text) == "i can't say that i can't say that"


def test_the_report_says_which_languages_it_cannot_read():
    found = summary(-0.1, 0.9)
    assert not [line for line in doubts(found) if "languages" in line]
    from dataclasses import replace

    mixed = {name: replace(each, unread={"it": 0.4, "ko": 0.01}) for name, each in found.behaviour.items()}
    [said] = [line for line in doubts(replace(found, behaviour=mixed)) if "languages" in line]
    assert said.startswith("Up to 40\u202f% in it: languages whose refusals are not known here")
